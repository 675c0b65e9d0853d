package network

import (
	"log/slog"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// debris is what a released sandbox leaves to be taken away.
type debris struct {
	links []string       // host ends of veth pairs
	addrs []netip.Prefix // what the sandbox's addresses were
	udp   bool           // connections may be tracked that would outlive it
	after func()         // called when the links are gone, or cannot be deleted; may be nil
}

// reaper takes debris away in the background. Deleting a veth pair takes 16 ms,
// of which nearly all is waiting; what gathers meanwhile is deleted together.
type reaper struct {
	log  *slog.Logger
	wake chan struct{}
	done sync.WaitGroup

	mu     sync.Mutex
	heap   []debris
	closed bool
}

func newReaper(log *slog.Logger) *reaper {
	r := &reaper{log: log, wake: make(chan struct{}, 1)}
	r.done.Go(r.run)
	return r
}

func (r *reaper) add(d debris) {
	r.mu.Lock()
	r.heap = append(r.heap, d)
	r.mu.Unlock()
	r.poke()
}

func (r *reaper) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// settle waits until all that was added before is gone.
func (r *reaper) settle() {
	done := make(chan struct{})
	r.add(debris{after: func() { close(done) }})
	<-done
}

// close waits until all that was added is gone. Nothing may be added after it.
func (r *reaper) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.poke()
	r.done.Wait()
}

func (r *reaper) run() {
	for range r.wake {
		r.mu.Lock()
		heap, closed := r.heap, r.closed
		r.heap = nil
		r.mu.Unlock()
		r.reap(heap)
		if closed {
			return
		}
	}
}

func (r *reaper) reap(heap []debris) {
	if len(heap) == 0 {
		return
	}
	defer func() {
		for _, d := range heap {
			if d.after != nil {
				d.after()
			}
		}
	}()
	// A socket of its own: a request on the shared one would make every Join wait.
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		r.log.Error("released network interfaces cannot be deleted", "error", err)
		return
	}
	defer h.Close()
	var links []string
	for _, d := range heap {
		links = append(links, d.links...)
	}
	if err := deleteLinks(h, links); err != nil {
		r.log.Error("released network interfaces cannot be deleted", "error", err)
	}
	for _, d := range heap {
		if d.udp {
			r.forget(h, d.addrs)
		}
	}
}

// forget ends the tracked connections of a released sandbox: a client that goes on
// sending UDP packets from one port would keep reaching its old address.
func (r *reaper) forget(h *netlink.Handle, addrs []netip.Prefix) {
	for _, p := range addrs {
		filter := &netlink.ConntrackFilter{}
		if err := filter.AddIP(netlink.ConntrackReplySrcIP, p.Addr().AsSlice()); err != nil {
			continue
		}
		family := netlink.InetFamily(unix.AF_INET)
		if p.Addr().Is6() {
			family = unix.AF_INET6
		}
		if _, err := h.ConntrackDeleteFilters(netlink.ConntrackTable, family, filter); err != nil {
			r.log.Warn("tracked connections cannot be ended", "address", p.Addr(), "error", err)
		}
	}
}
