package command

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// openLog makes the session's log. In a file of JSON lines containerd, dockerd
// and podman look for the last error: {"level":"error","msg":…,"time":…}.
func (s *session) openLog(path, format, level string, debug bool) error {
	if debug {
		level = "debug"
	}
	if level == "warning" {
		level = "warn"
	}
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("--log-level %q: debug, info, warning and error are understood", level)
	}
	if format != "text" && format != "json" {
		return fmt.Errorf("--log-format %q: text and json are understood", format)
	}
	out := s.stderr
	if path != "" && path != "/dev/stderr" {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			return fmt.Errorf("open log: %w", err)
		}
		out, s.logFile = file, true // open until the program ends
	}
	options := &slog.HandlerOptions{Level: least, ReplaceAttr: lowerLevel}
	switch {
	case format == "json":
		s.log = slog.New(slog.NewJSONHandler(out, options))
	case s.logFile || least < slog.LevelInfo: // as with other runtimes debug messages have a form for programs
		s.log = slog.New(slog.NewTextHandler(out, options))
	default:
		s.log = slog.New(&plainHandler{w: out, level: least})
	}
	return nil
}

// lowerLevel writes levels as all runtimes do: "error", "warning".
func lowerLevel(groups []string, a slog.Attr) slog.Attr {
	if a.Key != slog.LevelKey || len(groups) > 0 {
		return a
	}
	return slog.String(slog.LevelKey, levelName(a.Value.Any().(slog.Level)))
}

func levelName(l slog.Level) string {
	if l == slog.LevelWarn {
		return "warning"
	}
	return strings.ToLower(l.String())
}

// plainHandler writes lines for people.
type plainHandler struct {
	level slog.Level
	attrs []slog.Attr

	mu sync.Mutex // guards w
	w  io.Writer
}

func (h *plainHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *plainHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(program + ": ")
	if r.Level != slog.LevelError {
		b.WriteString(levelName(r.Level) + ": ")
	}
	b.WriteString(r.Message)
	add := func(a slog.Attr) bool { fmt.Fprintf(&b, " %s=%v", a.Key, a.Value); return true }
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	b.WriteByte('\n')
	h.mu.Lock()
	defer h.mu.Unlock()
	_, err := io.WriteString(h.w, b.String())
	return err
}

func (h *plainHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &plainHandler{w: h.w, level: h.level, attrs: append(h.attrs[:len(h.attrs):len(h.attrs)], attrs...)}
}

func (h *plainHandler) WithGroup(string) slog.Handler { return h }
