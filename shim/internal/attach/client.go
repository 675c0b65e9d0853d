package attach

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/shim/internal/stream"
)

const (
	maxMemory = 256 << 10 // bytes kept in memory for a slow client
	chunk     = 64 << 10  // bytes read back from its file at once
	hole      = 4 << 20   // bytes of the file whose room is given back at once
)

// client is one attached client. What its socket takes at once is written at
// once; the rest waits, first in memory, then in a file, and a goroutine that
// lives as long as anything waits delivers it.
//
//	oldest ── socket ── memory ── file ── newest
type client struct {
	server *Server
	conn   *os.File
	hello  stdio.Hello

	mu       sync.Mutex
	memory   []byte
	file     *os.File // unlinked; nil until needed
	from, to int64    // the part of file that waits
	late     bool     // something waits, and deliver sees to it
	failed   error    // of the delivery
	ended    bool     // nothing more will come
	gone     bool
	pump     *stream.Pump // of its input; nil without
	unread   []byte       // of its input: what pump begins with
}

// pumpTo is the pump of the client's input to in.
func (c *client) pumpTo(in *os.File) *stream.Pump {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pump = &stream.Pump{Dst: in, Src: c.conn, Gate: c.server.cfg.Gate}
	c.pump.Resume(c.unread)
	c.unread = nil
	return c.pump
}

// put sends the parts, as one, or keeps what the socket does not take.
func (c *client) put(parts ...[]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.ended {
		return
	}
	if !c.late {
		n, err := c.sendNow(parts)
		if err != nil {
			c.close()
			return
		}
		if parts = skip(parts, n); len(parts) == 0 {
			return
		}
		c.late = true
		c.server.work.Go(c.deliver)
	}
	for _, p := range parts {
		if err := c.keep(p); err != nil {
			slog.Error("slow attach client is dropped", "err", err)
			c.close()
			return
		}
	}
}

// sendNow writes what the socket takes without waiting.
func (c *client) sendNow(parts [][]byte) (n int, err error) {
	raw, err := c.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var serr error
	err = raw.Control(func(fd uintptr) {
		n, serr = unix.SendmsgBuffers(int(fd), parts, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	})
	if err != nil {
		return 0, err
	}
	if serr == unix.EAGAIN || serr == unix.EINTR {
		return 0, nil
	}
	return max(n, 0), serr
}

// skip drops the first n bytes of parts.
func skip(parts [][]byte, n int) [][]byte {
	for len(parts) > 0 && n >= len(parts[0]) {
		n -= len(parts[0])
		parts = parts[1:]
	}
	if len(parts) > 0 {
		parts[0] = parts[0][n:]
	}
	return parts
}

// keep adds p to what waits.
func (c *client) keep(p []byte) error {
	if c.from == c.to && len(c.memory)+len(p) <= maxMemory {
		c.memory = append(c.memory, p...)
		return nil
	}
	if c.file == nil {
		var err error
		if c.file, err = unlinked(c.server.cfg.Spill); err != nil {
			return fmt.Errorf("make spill file: %w", err)
		}
	}
	n, err := c.file.WriteAt(p, c.to)
	c.to += int64(n)
	return err
}

// unlinked makes a file in dir that has no name.
func unlinked(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "spill"), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	f, err := os.CreateTemp(dir, "spill.*") // NFS, for one, has no O_TMPFILE
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// deliver writes what waits, until nothing does.
func (c *client) deliver() {
	raw, err := c.conn.SyscallConn()
	if err == nil {
		err = raw.Write(func(fd uintptr) bool {
			c.server.cfg.Gate.Enter()
			defer c.server.cfg.Gate.Leave()
			return c.catchUp(int(fd))
		})
	}
	c.server.cfg.Gate.Enter()
	defer c.server.cfg.Gate.Leave()
	if c.delivered(err) {
		c.leave()
	}
}

// catchUp sends what the socket takes of what waits; it says whether to stop, for
// nothing waits any more, or nothing ever will be taken.
func (c *client) catchUp(fd int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.gone && c.failed == nil {
		if len(c.memory) == 0 {
			if c.from == c.to {
				c.memory, c.late = nil, false
				return true
			}
			if c.failed = c.recall(); c.failed != nil {
				return true
			}
		}
		n, err := unix.SendmsgN(fd, c.memory, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			c.memory = c.memory[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			c.failed = err
		}
	}
	return true
}

// recall reads the oldest part of the file back into memory.
func (c *client) recall() error {
	b := make([]byte, min(chunk, c.to-c.from))
	n, err := c.file.ReadAt(b, c.from)
	if n == 0 {
		slog.Error("slow attach client is dropped", "err", err)
		return err
	}
	c.forget(int64(n))
	c.memory = b[:n]
	return nil
}

// delivered ends a delivery; it says whether the client has to go, for it has failed.
func (c *client) delivered(err error) (failed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || c.failed != nil {
		return true
	}
	if c.ended && !c.late {
		c.close()
	}
	return false
}

// forget drops the oldest n bytes of the file, and gives their room on the disk
// back: a client that never catches up costs what it is behind, not more.
func (c *client) forget(n int64) {
	old := c.from / hole
	if c.from += n; c.from == c.to {
		c.from, c.to = 0, 0
		c.file.Truncate(0)
		return
	}
	if c.from/hole > old { // where the filesystem cannot, the file only grows
		unix.Fallocate(int(c.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, c.from/hole*hole)
	}
}

// end closes the client once it has everything. The caller holds the server's lock.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	if !c.late {
		c.close()
	}
}

// leave takes the client off the server's list.
func (c *client) leave() {
	c.server.mu.Lock()
	delete(c.server.clients, c)
	c.server.mu.Unlock()
	c.mu.Lock()
	c.close()
	c.mu.Unlock()
}

// close closes the connection so that the client reads an end, not a reset: a
// unix socket that is closed with unread input tells its peer ECONNRESET.
func (c *client) close() {
	if c.gone {
		return
	}
	c.gone, c.memory = true, nil
	if raw, err := c.conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) {
			unix.Shutdown(int(fd), unix.SHUT_RDWR)
			discard(int(fd))
		})
	}
	c.conn.Close()
	if c.file != nil {
		c.file.Close()
	}
}
