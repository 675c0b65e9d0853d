package shims

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// poller waits for descriptors of all tasks with one goroutine: the stack of each,
// and what the runtime keeps for a file that it polls, would be a good part of what
// a container takes of the daemon's memory.
type poller struct {
	epoll *os.File // readable when one of the descriptors is; Go's own poller has it

	mu      sync.Mutex
	watched map[uint64]*watch
	last    uint64 // that a watch was numbered with
	closed  bool
}

// watch is a descriptor that the poller looks at, and owns.
type watch struct {
	p  *poller
	id uint64

	mu   sync.Mutex
	fd   int // -1 when it is no longer watched
	read func(fd int) (more bool)
}

// newPoller begins to wait. It ends when it is closed and watches nothing.
func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // for os.NewFile to have it polled
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(fd))
	}
	p := &poller{epoll: os.NewFile(uintptr(fd), "epoll"), watched: map[uint64]*watch{}}
	go p.run()
	return p, nil
}

// watch has read called whenever fd can be read, until it says that there is no
// more, or end is called. read must not block, as all others wait for it, nor end
// the watch itself. The poller closes fd, here too if it cannot watch it.
func (p *poller) watch(fd int, read func(fd int) (more bool)) (*watch, error) {
	p.mu.Lock()
	p.last++
	w := &watch{p: p, id: p.last, fd: fd, read: read}
	p.watched[w.id] = w
	p.mu.Unlock()
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(w.id), Pad: int32(w.id >> 32)}
	err := p.control(func(epoll int) error { return unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &event) })
	if err != nil {
		w.end()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return w, nil
}

// end closes the descriptor; read does not run any more when it returns. It may be
// called on nil, and again.
func (w *watch) end() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.close()
}

// close takes the descriptor out; w.mu is held.
func (w *watch) close() {
	if w.fd < 0 {
		return
	}
	// Closing is not enough: what a child that is being started has yet to close counts too.
	_ = w.p.control(func(epoll int) error { return unix.EpollCtl(epoll, unix.EPOLL_CTL_DEL, w.fd, nil) })
	unix.Close(w.fd)
	w.fd, w.read = -1, nil
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	delete(w.p.watched, w.id)
	w.p.endIfDone()
}

// close has the poller end with the last that it watches.
func (p *poller) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.endIfDone()
}

// endIfDone ends run when nothing is left; p.mu is held.
func (p *poller) endIfDone() {
	if p.closed && len(p.watched) == 0 {
		p.epoll.Close()
	}
}

func (p *poller) run() {
	raw, err := p.epoll.SyscallConn()
	for err == nil {
		var events [16]unix.EpollEvent
		n := 0
		err = raw.Read(func(epoll uintptr) bool {
			n, _ = unix.EpollWait(int(epoll), events[:], 0)
			return n > 0
		})
		for _, e := range events[:max(n, 0)] {
			p.ready(uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32)
		}
	}
}

// ready has the watch read, unless it has ended meanwhile.
func (p *poller) ready(id uint64) {
	p.mu.Lock()
	w := p.watched[id]
	p.mu.Unlock()
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 && !w.read(w.fd) {
		w.close()
	}
}

// control calls f with the epoll's descriptor.
func (p *poller) control(f func(epoll int) error) error {
	raw, err := p.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	return errors.Join(raw.Control(func(fd uintptr) { ferr = f(int(fd)) }), ferr)
}
