package network

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/errs"
)

// box is a sandbox in this process. Its Sandbox, elements and held are guarded by
// Networks.mu; work of mu lasts as long as a change of the sandbox, and comes
// before Networks.mu where both are held.
type box struct {
	Sandbox
	elements []element // in the kernel's maps for Ports
	held     []int     // sockets that are bound to Ports

	work     sync.Mutex
	released bool
	fresh    *prepared // from NewSandbox to the first Join
	names    *resolver // serves 127.0.0.11 in it
}

// validID says whether id can be a file name and a containerd identifier.
func validID(id string) bool {
	if id == "" || len(id) > 201 || strings.ContainsRune("_.-", rune(id[0])) {
		return false
	}
	return !strings.ContainsFunc(id, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_.-", r))
	})
}

// NewSandbox makes and pins a network namespace with its loopback up. Errors:
// AlreadyExists (the ID), NotFound (the network), InvalidArgument.
func (n *Networks) NewSandbox(ctx context.Context, id string, o SandboxOptions) (_ Sandbox, err error) {
	if !validID(id) {
		return Sandbox{}, fmt.Errorf("make sandbox: %q cannot be an ID: %w", id, errdefs.ErrInvalidArgument)
	}
	b := &box{Sandbox: Sandbox{
		ID: id, Path: n.SandboxPath(id), Created: time.Now().UTC(), DNS: slices.Clone(o.DNS),
	}}
	b.work.Lock()
	defer b.work.Unlock()
	wired, err := n.enter(b, o.Network)
	if err != nil {
		return Sandbox{}, fmt.Errorf("make sandbox %s: %w", id, err)
	}
	defer errs.Undo(&err, func() error {
		n.mu.Lock()
		defer n.mu.Unlock()
		b.released = true
		delete(n.boxes, id)
		return nil
	})
	fresh, err := n.prepare(wired)
	if err != nil {
		return Sandbox{}, fmt.Errorf("make sandbox %s: %w", id, err)
	}
	defer errs.Undo(&err, func() error { fresh.close(); return nil })
	if err := fresh.ns.pin(b.Path); err != nil {
		return Sandbox{}, fmt.Errorf("make sandbox %s: %w", id, err)
	}
	defer errs.Undo(&err, func() error { return unpin(b.Path) })
	if err := n.sandboxes.write(id, b.Sandbox); err != nil {
		return Sandbox{}, fmt.Errorf("make sandbox %s: %w", id, err)
	}
	if wired {
		b.fresh = fresh
	} else {
		fresh.close()
	}
	return b.Sandbox, nil
}

// SandboxPath is where the namespace of a sandbox is pinned, or will be.
func (n *Networks) SandboxPath(id string) string { return filepath.Join(n.netnsDir(), id) }

// enter takes the ID for b, and says whether b will be joined to a bridge.
func (n *Networks) enter(b *box, network string) (wired bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if network != "" {
		w, err := n.find(network)
		if err != nil {
			return false, err
		}
		if w.Name == Host {
			return false, fmt.Errorf("network %s has no sandboxes: %w", w.Name, errdefs.ErrInvalidArgument)
		}
		wired = w.Name != None
	}
	if n.boxes[b.ID] != nil {
		return false, errdefs.ErrAlreadyExists
	}
	n.boxes[b.ID] = b
	return wired, nil
}

// prepare takes a prepared namespace, or makes one now.
func (n *Networks) prepare(wired bool) (*prepared, error) {
	p := n.pool
	if !wired {
		p = n.bare
		p.fill()
	}
	if one := p.take(); one != nil {
		return one, nil
	}
	return p.make()
}

// Sandbox gives the sandbox with this ID. Errors: NotFound.
func (n *Networks) Sandbox(id string) (Sandbox, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.boxes[id]
	if b == nil {
		return Sandbox{}, notFound(id)
	}
	s := b.Sandbox
	s.Endpoints, s.Ports = slices.Clone(s.Endpoints), slices.Clone(s.Ports)
	return s, nil
}

func notFound(id string) error { return fmt.Errorf("sandbox %s: %w", id, errdefs.ErrNotFound) }

// hold finds the sandbox and keeps others from changing it until done is called.
// Errors: NotFound.
func (n *Networks) hold(id string) (b *box, done func(), err error) {
	n.mu.Lock()
	b = n.boxes[id]
	n.mu.Unlock()
	if b == nil {
		return nil, nil, notFound(id)
	}
	b.work.Lock()
	if b.released {
		b.work.Unlock()
		return nil, nil, notFound(id)
	}
	return b, b.work.Unlock, nil
}

// change applies f to the sandbox's record, in memory and on disk. work is held.
func (n *Networks) change(b *box, f func(*Sandbox)) error {
	n.mu.Lock()
	s := b.Sandbox
	s.Endpoints, s.Ports = slices.Clone(s.Endpoints), slices.Clone(s.Ports)
	n.mu.Unlock()
	f(&s)
	if err := n.sandboxes.write(b.ID, s); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	b.Sandbox = s
	return nil
}

// namespace opens the sandbox's namespace; close it with the function given.
func (b *box) namespace() (*namespace, func(), error) {
	if b.fresh != nil {
		return b.fresh.ns, func() {}, nil
	}
	ns, err := openNamespace(b.Path)
	if err != nil {
		return nil, nil, err
	}
	return ns, ns.close, nil
}

// Release ends a sandbox: its ports are free at once, its namespace and its
// addresses soon after, in the background (Close waits for it). The ID can be used
// again at once. A sandbox that is not there is no error.
func (n *Networks) Release(ctx context.Context, sandboxID string) error {
	b, done, err := n.hold(sandboxID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer done()
	if b.names != nil {
		b.names.close()
	}
	// First what the outside sees, last what says that the ID is free.
	err = errors.Join(n.unpublish(b), unpin(b.Path), n.sandboxes.remove(b.ID))
	d := debris{udp: b.hasUDP()}
	if b.fresh != nil {
		d.links = append(d.links, b.fresh.wire.name)
		b.fresh.ns.close()
		b.fresh = nil
	}
	for _, ep := range b.Endpoints {
		d.links = append(d.links, ep.HostIf)
		d.addrs = append(d.addrs, ep.Addrs...)
	}
	d.after = func() { n.unlease(b.Endpoints) }
	n.reaper.add(d)
	n.mu.Lock()
	b.released = true
	delete(n.boxes, b.ID)
	n.mu.Unlock()
	if err != nil {
		return fmt.Errorf("release sandbox %s: %w", sandboxID, err)
	}
	return nil
}

func (b *box) hasUDP() bool {
	return slices.ContainsFunc(b.Ports, func(p Port) bool { return p.Proto == "udp" })
}

// unlease gives the addresses of endpoints back.
func (n *Networks) unlease(eps []Endpoint) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, ep := range eps {
		if br := n.bridges[ep.NetworkID]; br != nil {
			br.unlease(ep.Addrs)
		}
	}
}

// Restore keeps the sandboxes that live says run, holds their published ports
// and answers their DNS queries again, and releases every other sandbox, and
// every link, namespace, rule and lease that a killed daemon left half made.
func (n *Networks) Restore(ctx context.Context, live func(sandboxID string) bool) error {
	n.mu.Lock()
	boxes := make([]*box, 0, len(n.boxes))
	for _, b := range n.boxes {
		boxes = append(boxes, b)
	}
	n.mu.Unlock()
	var failed []error
	for _, b := range boxes {
		switch {
		case !live(b.ID):
			failed = append(failed, n.Release(ctx, b.ID))
		case !pinned(b.Path):
			n.log.Error("a running sandbox has lost its network namespace", "sandbox", b.ID, "path", b.Path)
			failed = append(failed, n.Release(ctx, b.ID))
		default:
			failed = append(failed, n.resume(b))
		}
	}
	failed = append(failed, n.sweep())
	n.pool.fill()
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("restore networks: %w", err)
	}
	return nil
}

// sweep removes pinned namespaces and links that no record tells of.
func (n *Networks) sweep() error {
	n.mu.Lock()
	known := map[string]bool{}
	for _, b := range n.boxes {
		known[b.ID] = true
		for _, ep := range b.Endpoints {
			known[ep.HostIf] = true
		}
	}
	n.mu.Unlock()
	entries, err := os.ReadDir(n.netnsDir())
	if err != nil {
		return err
	}
	var failed []error
	for _, e := range entries {
		if !known[e.Name()] {
			failed = append(failed, unpin(filepath.Join(n.netnsDir(), e.Name())))
		}
	}
	links, err := dumped(n.links.LinkList)
	if err != nil {
		return errors.Join(append(failed, fmt.Errorf("list links: %w", err))...)
	}
	var lost []string
	for _, l := range links {
		if name := l.Attrs().Name; n.isOurs(name) && !known[name] {
			lost = append(lost, name)
		}
	}
	n.reaper.add(debris{links: lost})
	return errors.Join(failed...)
}
