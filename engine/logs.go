package engine

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types"

	"github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/engine/internal/jsonlog"
)

// getLogs is GET /containers/{id}/logs.
func (c *containers) getLogs(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	o, err := logOptions(r)
	if err != nil {
		return err
	}
	rec := k.snapshot()
	if rec.LogPath == "" {
		return because(errdefs.ErrNotImplemented, "configured logging driver does not support reading")
	}
	media := types.MediaTypeRawStream
	if !rec.Config.Tty && minor(r) >= 42 {
		media = types.MediaTypeMultiplexedStream
	}
	w.Header().Set("Content-Type", media)
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	rc.Flush()

	out := bufio.NewWriterSize(w, 32<<10)
	lines := logWriter{w: out, framed: !rec.Config.Tty, times: boolValue(r, "timestamps"), details: boolValue(r, "details")}
	if o.Follow {
		// A start makes the directory; the follower must watch it before.
		if err := os.MkdirAll(c.dir(k.id), 0o710); err != nil {
			return errors.Join(errStreamed, err)
		}
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		o.Ended = c.logEnd(ctx, k)
		o.Idle = func() { out.Flush(); rc.Flush() }
	}
	err = jsonlog.Read(r.Context(), rec.LogPath, o, lines.write)
	out.Flush()
	if err != nil && r.Context().Err() == nil {
		c.cfg.Log.Warn("read log", "container", k.id, "err", err)
	}
	return errStreamed
}

func logOptions(r *http.Request) (o jsonlog.Options, err error) {
	o.Stdout, o.Stderr, o.Follow = boolValue(r, "stdout"), boolValue(r, "stderr"), boolValue(r, "follow")
	if !o.Stdout && !o.Stderr {
		return o, invalid("Bad parameters: you must choose at least one stream")
	}
	if o.Since, err = parseTime(r.FormValue("since")); err != nil {
		return o, err
	}
	if o.Until, err = parseTime(r.FormValue("until")); err != nil {
		return o, err
	}
	// What is no number is "all".
	if o.Tail, err = strconv.Atoi(r.FormValue("tail")); err != nil || o.Tail < 0 {
		o.Tail = -1
	}
	return o, nil
}

// logEnd is closed when the container has stopped and its log is whole, or when
// ctx ends; a start that a policy makes afterwards is another follower's. One
// that was never started has no log and is at its end.
func (c *containers) logEnd(ctx context.Context, k *ctr) <-chan struct{} {
	end := make(chan struct{})
	go func() {
		defer close(end)
		_, last, _ := k.now()
		if last == nil {
			return
		}
		wait(ctx, last.settled)
	}()
	return end
}

// logWriter writes records as a client reads them.
type logWriter struct {
	w       io.Writer
	framed  bool // in frames of Docker's multiplexed stream
	times   bool
	details bool
	within  [3]bool // by stream: the last record was not the end of a line
	buf     []byte
}

// fixedTime is RFC 3339 with nine decimals, so that lines stand in columns.
const fixedTime = "2006-01-02T15:04:05.000000000Z07:00"

func (l *logWriter) write(rec stdio.Record) error {
	stream := stdio.Stdout
	if rec.Stream == "stderr" {
		stream = stdio.Stderr
	}
	b := l.buf[:0]
	if l.framed {
		b = append(b, make([]byte, stdio.FrameHeaderLen)...)
	}
	if !l.within[stream] {
		if l.times {
			b = append(rec.Time.UTC().AppendFormat(b, fixedTime), ' ')
		}
		if l.details {
			b = append(b, ' ') // no log option gives attributes
		}
	}
	b = append(b, rec.Log...)
	l.within[stream] = len(rec.Log) > 0 && rec.Log[len(rec.Log)-1] != '\n'
	if l.framed {
		h := stdio.FrameHeader(stream, len(b)-stdio.FrameHeaderLen)
		copy(b, h[:])
	}
	l.buf = b
	_, err := l.w.Write(b)
	return err
}

// replay writes what the log has, before an attach.
func (c *containers) replay(w io.Writer, k *ctr, r *http.Request) error {
	rec := k.snapshot()
	if rec.LogPath == "" {
		return nil
	}
	out := bufio.NewWriter(w)
	lines := logWriter{w: out, framed: !rec.Config.Tty}
	o := jsonlog.Options{Tail: -1, Stdout: boolValue(r, "stdout"), Stderr: boolValue(r, "stderr")}
	err := jsonlog.Read(r.Context(), rec.LogPath, o, lines.write)
	return errors.Join(err, out.Flush())
}
