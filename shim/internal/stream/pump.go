package stream

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/shim/internal/gate"
)

// Pump copies Src to Dst, waiting for Dst. What it has read and not yet written can
// be asked for, so that another process can go on with it.
type Pump struct {
	Dst, Src *os.File
	Gate     *gate.Gate

	mu   sync.Mutex
	rest []byte // read, and not yet written
	err  error  // the first of Dst
}

// Run copies until Src ends, which is no error. Where Dst fails, Src is read on all
// the same, and what does not go there is lost; the first such error is returned.
func (p *Pump) Run() error {
	r := reader{}
	for ended := false; !ended; {
		p.flush()
		err := Await(p.Src, p.Gate, func(fd int) bool {
			n, end := p.fill(&r, fd)
			ended = end
			return n > 0 || end
		})
		if err == os.ErrClosed {
			break
		}
		if err == nil {
			err = r.err
		}
		if err != nil {
			return err
		}
	}
	return p.err
}

// fill reads once.
func (p *Pump) fill(r *reader, fd int) (n int, ended bool) {
	if !Readable(fd) {
		return 0, false
	}
	b := large.Get().(*[]byte)
	defer large.Put(b)
	n, ended = r.read(fd, *b)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rest = append([]byte(nil), (*b)[:n]...)
	return n, ended
}

// flush writes what was read.
func (p *Pump) flush() {
	if len(p.Rest()) == 0 {
		return
	}
	raw, err := p.Dst.SyscallConn()
	if err == nil {
		err = raw.Write(func(fd uintptr) bool {
			p.Gate.Enter()
			defer p.Gate.Leave()
			return p.write(int(fd))
		})
	}
	if err != nil {
		p.fail(err)
	}
}

// write writes what Dst takes at once; it says whether that was all.
func (p *Pump) write(fd int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.rest) > 0 {
		n, err := unix.Write(fd, p.rest)
		switch err {
		case nil:
			p.rest = p.rest[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			p.lose(err)
		}
	}
	p.rest = nil
	return true
}

func (p *Pump) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lose(err)
}

// lose gives up what was read. The caller holds p.mu.
func (p *Pump) lose(err error) {
	p.rest = nil
	if p.err == nil {
		p.err = err
	}
}

// Rest is what was read and is not yet written.
func (p *Pump) Rest() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rest
}

// Resume has Run begin with what another Pump had left.
func (p *Pump) Resume(rest []byte) { p.rest = rest }
