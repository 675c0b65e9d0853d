package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/format"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

// redraw is how often the live table is drawn.
const redraw = 500 * time.Millisecond

type statsOptions struct {
	all, noStream, noTrunc bool
	format                 string
}

func statsCommand(c *cli) *cobra.Command {
	var o statsOptions
	cmd := &cobra.Command{
		Use:   "stats [OPTIONS] [CONTAINER...]",
		Short: "Display a live stream of container(s) resource usage statistics",
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.format == "" {
				o.format = c.file().StatsFormat
			}
			return c.stats(cmd.Context(), args, &o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	f.StringVar(&o.format, "format", "", listFormatUsage)
	f.BoolVar(&o.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not truncate output")
	aliases(cmd, "container stats", "stats")
	return cmd
}

// statsRow is one container's use of the machine.
type statsRow struct {
	BlockIO, CPUPerc, Container, ID, MemPerc, MemUsage, Name, NetIO, PIDs string
}

// stats reads one stream per container and draws all of them together.
func (c *cli) stats(ctx context.Context, names []string, o *statsOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	cl, err := c.engine()
	if err != nil {
		return err
	}
	b := &board{cl: cl, live: !o.noStream, full: o.noTrunc, readers: &readers}
	if len(names) > 0 {
		for _, name := range names {
			b.add(ctx, name)
		}
	} else if err := b.followAll(ctx, o.all, !o.noStream); err != nil {
		return err
	}
	b.first()
	if err := b.failed(); err != nil {
		return err
	}
	if o.noStream {
		return writeStats(c.std.Out, o.format, b.rows())
	}
	return c.drawStats(ctx, b, o, len(names) > 0)
}

// drawStats redraws the table until every named container is gone.
func (c *cli) drawStats(ctx context.Context, b *board, o *statsOptions, named bool) error {
	_, tty := terminal.File(c.std.Out)
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	if tty {
		fmt.Fprint(c.std.Out, "\x1b[2J")
	}
	for {
		var text bytes.Buffer
		if err := writeStats(&text, o.format, b.rows()); err != nil {
			return err
		}
		if tty {
			// From the top: every line up to its end, and what was below it away.
			fmt.Fprint(c.std.Out, "\x1b[H", strings.ReplaceAll(text.String(), "\n", "\x1b[K\n"), "\x1b[J")
		} else {
			text.WriteTo(c.std.Out)
		}
		if named && b.empty() {
			return nil
		}
		if err := b.streamError(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func writeStats(w io.Writer, text string, rows []statsRow) error {
	return format.Write(w, format.List{
		Columns: []string{"ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"},
		Headers: map[string]string{
			"Container": "CONTAINER", "ID": "CONTAINER ID", "Name": "NAME", "CPUPerc": "CPU %", "MemUsage": "MEM USAGE / LIMIT",
			"MemPerc": "MEM %", "NetIO": "NET I/O", "BlockIO": "BLOCK I/O", "PIDs": "PIDS",
		},
	}, text, rows)
}

// board is the containers that are watched, in the order in which they came.
type board struct {
	cl         *client.Client
	live, full bool
	readers    *sync.WaitGroup

	mu      sync.Mutex
	watched []*watched
	ended   error // why the events ended
}

// watched is one container's newest numbers.
type watched struct {
	name string
	row  statsRow
	err  error
	come chan struct{} // closed when the first numbers, or an error, are here
	once sync.Once
	gone bool
	stop context.CancelFunc
}

// followAll watches what runs, and what starts and ends from now on. The events
// are asked for first: what starts between the two is seen twice, not never.
func (b *board) followAll(ctx context.Context, all, live bool) error {
	if live {
		q := url.Values{}
		f := filters{}
		f.set("type", "container")
		if err := f.into(q); err != nil {
			return err
		}
		resp, err := b.cl.Do(ctx, client.Request{Method: http.MethodGet, Path: "/events", Query: q})
		if err != nil {
			return err
		}
		b.readers.Go(func() { b.follow(ctx, resp.Body, all) })
	}
	q := url.Values{}
	if all {
		q.Set("all", "1")
	}
	var list []container.Summary
	if err := b.cl.Get(ctx, "/containers/json", q, &list); err != nil {
		return err
	}
	for _, s := range list {
		b.add(ctx, format.ID(s.ID, b.full))
	}
	return nil
}

func (b *board) follow(ctx context.Context, body io.ReadCloser, all bool) {
	defer body.Close()
	dec := json.NewDecoder(body)
	for {
		var e events.Message
		if err := dec.Decode(&e); err != nil {
			b.mu.Lock()
			b.ended = err
			b.mu.Unlock()
			return
		}
		id := format.ID(e.Actor.ID, b.full)
		switch e.Action {
		case events.ActionCreate:
			if all {
				b.add(ctx, id)
			}
		case events.ActionStart:
			b.add(ctx, id)
		case events.ActionDie:
			if !all {
				b.remove(id)
			}
		case events.ActionDestroy:
			b.remove(id)
		}
	}
}

func (b *board) add(ctx context.Context, name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.ContainsFunc(b.watched, func(w *watched) bool { return w.name == name && !w.gone }) {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watched{name: name, come: make(chan struct{}), stop: cancel}
	w.row = noStats(name)
	b.watched = append(b.watched, w)
	b.readers.Go(func() {
		defer cancel()
		b.read(ctx, w)
	})
}

func (b *board) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watched = slices.DeleteFunc(b.watched, func(w *watched) bool {
		if w.name == name {
			w.stop()
		}
		return w.name == name
	})
}

// read keeps w up to date until its stream ends.
func (b *board) read(ctx context.Context, w *watched) {
	defer w.once.Do(func() { close(w.come) })
	q := url.Values{"stream": {"0"}}
	if b.live {
		q.Set("stream", "1")
	}
	resp, err := b.cl.Do(ctx, client.Request{Method: http.MethodGet, Path: "/containers/" + url.PathEscape(w.name) + "/stats", Query: q})
	if err == nil {
		defer resp.Body.Close()
		dec := json.NewDecoder(resp.Body)
		for {
			var s container.StatsResponse
			if err = dec.Decode(&s); err != nil {
				break
			}
			b.mu.Lock()
			w.row = newStatsRow(w.name, &s, b.full)
			b.mu.Unlock()
			if !b.live || !s.PreRead.IsZero() || s.Read.IsZero() {
				w.once.Do(func() { close(w.come) })
			}
			if !b.live {
				return
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	w.gone = true
	if !errors.Is(err, io.EOF) && ctx.Err() == nil {
		w.err = err
	}
}

// first waits for the first numbers of all.
func (b *board) first() {
	b.mu.Lock()
	all := slices.Clone(b.watched)
	b.mu.Unlock()
	timeout := time.After(3 * time.Second)
	for _, w := range all {
		if !b.live {
			<-w.come
			continue
		}
		select {
		case <-w.come:
		case <-timeout:
			return
		}
	}
}

// failed is what went wrong with containers from the start.
func (b *board) failed() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, w := range b.watched {
		errs = append(errs, w.err)
	}
	return errors.Join(errs...)
}

func (b *board) streamError() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if errors.Is(b.ended, io.EOF) {
		return nil
	}
	return b.ended
}

func (b *board) empty() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !slices.ContainsFunc(b.watched, func(w *watched) bool { return !w.gone })
}

func (b *board) rows() []statsRow {
	b.mu.Lock()
	defer b.mu.Unlock()
	var rows []statsRow
	for _, w := range b.watched {
		if !w.gone || !b.live {
			rows = append(rows, w.row)
		}
	}
	return rows
}

// noStats is the row of a container of which nothing is known yet.
func noStats(name string) statsRow {
	const none = "--"
	return statsRow{
		BlockIO: none + " / " + none, CPUPerc: none, Container: name, ID: none, MemPerc: none, MemUsage: none + " / " + none,
		Name: none, NetIO: none + " / " + none, PIDs: none,
	}
}

func newStatsRow(name string, s *container.StatsResponse, full bool) statsRow {
	used := memoryInUse(&s.MemoryStats)
	share := 0.0
	if s.MemoryStats.Limit > 0 {
		share = float64(used) / float64(s.MemoryStats.Limit) * 100
	}
	var rx, tx, read, written float64
	for _, n := range s.Networks {
		rx += float64(n.RxBytes)
		tx += float64(n.TxBytes)
	}
	for _, e := range s.BlkioStats.IoServiceBytesRecursive {
		switch {
		case strings.EqualFold(e.Op, "read"):
			read += float64(e.Value)
		case strings.EqualFold(e.Op, "write"):
			written += float64(e.Value)
		}
	}
	return statsRow{
		BlockIO: pair(read, written), CPUPerc: fmt.Sprintf("%.2f%%", cpuPercent(s)), Container: name, ID: format.ID(s.ID, full),
		MemPerc: fmt.Sprintf("%.2f%%", share), Name: strings.TrimPrefix(s.Name, "/"), NetIO: pair(rx, tx), PIDs: fmt.Sprint(s.PidsStats.Current),
		MemUsage: units.BytesSize(float64(used)) + " / " + units.BytesSize(float64(s.MemoryStats.Limit)),
	}
}

func pair(a, b float64) string {
	return units.HumanSizeWithPrecision(a, 3) + " / " + units.HumanSizeWithPrecision(b, 3)
}

// memoryInUse is without the pages of files that nobody has used lately: the
// kernel would give them up at once. cgroup v1 and v2 name them differently.
func memoryInUse(m *container.MemoryStats) uint64 {
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[key]; ok && v < m.Usage {
			return m.Usage - v
		}
	}
	return m.Usage
}

// cpuPercent is the share of one processor: 200% are two.
func cpuPercent(s *container.StatsResponse) float64 {
	cpu := float64(s.CPUStats.CPUUsage.TotalUsage) - float64(s.PreCPUStats.CPUUsage.TotalUsage)
	system := float64(s.CPUStats.SystemUsage) - float64(s.PreCPUStats.SystemUsage)
	n := float64(s.CPUStats.OnlineCPUs)
	if n == 0 {
		n = float64(len(s.CPUStats.CPUUsage.PercpuUsage))
	}
	if system <= 0 || cpu <= 0 {
		return 0
	}
	return cpu / system * n * 100
}
