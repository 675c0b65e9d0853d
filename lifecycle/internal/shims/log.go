package shims

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// openLog passes on what the shim writes to the log fifo in its bundle.
func (t *Task) openLog() error {
	// For reading and writing, so that neither side waits for the other and the
	// shim finds the same fifo when the next daemon opens it.
	fd, err := unix.Open(filepath.Join(t.bundle.dir, logFifo), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open shim log: %w", err)
	}
	var begun []byte // of a line
	log, err := t.table.poller.watch(fd, func(fd int) (more bool) {
		var buf [1024]byte
		n, err := unix.Read(fd, buf[:])
		if err != nil {
			return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
		}
		begun = t.passLines(append(begun, buf[:n]...))
		return n > 0
	})
	if err != nil {
		return fmt.Errorf("open shim log: %w", err)
	}
	t.mu.Lock()
	t.log = log
	t.mu.Unlock()
	return nil
}

// longestLine is how many bytes of a shim's line are waited for.
const longestLine = 16 << 10

// passLines passes whole lines on, and gives what is left of text.
func (t *Task) passLines(text []byte) (rest []byte) {
	log := t.table.cfg.Log.With("namespace", t.Namespace, "shim", t.ID)
	for len(text) > 0 {
		begun, after, whole := bytes.Cut(text, []byte("\n"))
		if !whole && len(text) < longestLine {
			return text
		}
		if line := string(bytes.TrimSpace(begun)); line != "" {
			if strings.Contains(line, "level=error") || strings.Contains(line, "level=warn") || strings.Contains(line, "panic") {
				log.Warn(line)
			} else {
				log.Debug(line)
			}
		}
		text = after
	}
	return nil
}
