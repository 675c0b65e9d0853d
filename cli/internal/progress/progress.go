// Package progress shows what an engine says while it pulls, pushes or loads: one
// line per layer with a bar on a terminal, and plain lines elsewhere.
package progress

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"

	"github.com/gantryd/gantry/cli/internal/terminal"
)

// message is one line of the stream. Engines before 1.24 gave the error as text alone.
type message struct {
	jsonstream.Message
	ErrorText string `json:"error,omitempty"`
}

// Show reads messages from r until its end and shows them on out. An error that
// the engine reports in the stream is returned. Messages with aux data are given
// to aux, if that is not nil.
func Show(out io.Writer, r io.Reader, aux func(json.RawMessage)) error {
	d := display{out: out, width: 80}
	if f, ok := terminal.File(out); ok {
		d.tty = true
		if _, w, ok := terminal.Size(f); ok {
			d.width = int(w)
		}
	}
	dec := json.NewDecoder(r)
	for {
		var m message
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read progress: %w", err)
		}
		switch {
		case m.Error != nil:
			return m.Error
		case m.ErrorText != "":
			return errors.New(m.ErrorText)
		case m.Aux != nil:
			if aux != nil {
				aux(*m.Aux)
			}
			continue
		}
		if err := d.show(&m); err != nil {
			return err
		}
	}
}

// display remembers which line belongs to which layer.
type display struct {
	out   io.Writer
	tty   bool
	width int
	lines map[string]int // line of each ID, counted from the first
}

func (d *display) show(m *message) error {
	if !d.tty {
		if m.Progress != nil && d.bar(m.Progress, 0) != "" {
			return nil
		}
		return d.plain(m)
	}
	if m.ID == "" || m.Progress == nil {
		d.lines = nil // a line of its own ends the block
		return d.plain(m)
	}
	if d.lines == nil {
		d.lines = map[string]int{}
	}
	line, known := d.lines[m.ID]
	if !known {
		line = len(d.lines)
		d.lines[m.ID] = line
		if _, err := io.WriteString(d.out, "\n"); err != nil {
			return err
		}
	}
	up := len(d.lines) - line
	text := m.ID + ": " + m.Status
	if m.Progress != nil {
		if bar := d.bar(m.Progress, d.width); bar != "" {
			text += " " + bar
		}
	}
	// Up to the layer's line, clear it, write, and down again.
	_, err := fmt.Fprintf(d.out, "\x1b[%dA\x1b[2K\r%s\x1b[%dB\r", up, text, up)
	return err
}

func (d *display) plain(m *message) error {
	text := m.Stream
	if text == "" {
		if m.ID != "" {
			text = m.ID + ": "
		}
		text += m.Status + "\n"
	}
	_, err := io.WriteString(d.out, text)
	return err
}

// barWidth is the length of the bar; a terminal too narrow for it gets numbers only.
const barWidth = 50

// bar draws progress: [====>   ]  1.2MB/3.4MB.
func (d *display) bar(p *jsonstream.Progress, width int) string {
	if p.Current <= 0 && p.Total <= 0 {
		return ""
	}
	if p.Total <= 0 {
		if p.Units == "" || p.Units == "bytes" {
			return fmt.Sprintf("%8v", units.HumanSize(float64(p.Current)))
		}
		return fmt.Sprintf("%d %s", p.Current, p.Units)
	}
	var b strings.Builder
	if width >= 80 {
		done := min(max(int(p.Current*barWidth/p.Total), 0), barWidth)
		gap := ""
		if done < barWidth {
			gap = ">" + strings.Repeat(" ", barWidth-done-1)
		}
		b.WriteString("[" + strings.Repeat("=", done) + gap + "] ")
	}
	if p.HideCounts {
		return b.String()
	}
	switch {
	case p.Units != "" && p.Units != "bytes":
		fmt.Fprintf(&b, "%d/%d %s", p.Current, p.Total, p.Units)
	case p.Current > p.Total:
		fmt.Fprintf(&b, "%8v", units.HumanSize(float64(p.Current)))
	default:
		fmt.Fprintf(&b, "%8v/%v", units.HumanSize(float64(p.Current)), units.HumanSize(float64(p.Total)))
	}
	if p.Start > 0 && p.Current > 0 && p.Current < p.Total && width > 100 {
		since := time.Since(time.Unix(p.Start, 0))
		left := (since / time.Duration(p.Current) * time.Duration(p.Total-p.Current)).Truncate(time.Second)
		fmt.Fprintf(&b, " %s", left)
	}
	return b.String()
}
