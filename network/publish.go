package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// protocols are the numbers of what can be published (IANA protocol numbers).
var protocols = map[string]uint8{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// ports says which sandbox has a host port.
type ports map[hostPort]string

type hostPort struct {
	proto string
	ip    netip.Addr
	port  uint16
}

func (p Port) host() hostPort { return hostPort{p.Proto, p.HostIP, p.HostPort} }

func (p ports) add(id string, published []Port) {
	for _, one := range published {
		p[one.host()] = id
	}
}

func (p ports) remove(published []Port) {
	for _, one := range published {
		delete(p, one.host())
	}
}

// taken says whether a sandbox has the port at that address or at every address.
func (p ports) taken(h hostPort) bool {
	if _, ok := p[h]; ok {
		return true
	}
	any := hostPort{h.proto, netip.IPv4Unspecified(), h.port}
	if h.ip.Is6() {
		any.ip = netip.IPv6Unspecified()
	}
	_, ok := p[any]
	return ok
}

// near says whether a sandbox has the port at any address.
func (p ports) near(h hostPort) bool {
	for k := range p {
		if k.proto == h.proto && k.port == h.port && k.ip.Is4() == h.ip.Is4() {
			return true
		}
	}
	return false
}

// Publish opens host ports that lead to the sandbox, all of them or none, and
// answers with the addresses and ports that were chosen. Consecutive ports are
// one range for the kernel. Errors: NotFound, FailedPrecondition (no endpoint
// with a way out), InvalidArgument, AlreadyExists: "Bind for IP:PORT failed:
// port is already allocated" if another sandbox has it, "…: address already in
// use" if a program of the host has it.
func (n *Networks) Publish(ctx context.Context, sandboxID string, ports []Port) (_ []Port, err error) {
	b, done, err := n.hold(sandboxID)
	if err != nil {
		return nil, err
	}
	defer done()
	if len(ports) == 0 {
		return nil, nil
	}
	got, held, err := n.bind(b, ports)
	if err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { closeAll(held); n.forgetPorts(got); return nil })
	elems := elements(got, b.wayOut())
	// The record comes before the rules, as Open makes the rules from records.
	if err := n.change(b, func(s *Sandbox) { s.Ports = append(s.Ports, got...) }); err != nil {
		return nil, fmt.Errorf("publish ports of sandbox %s: %w", sandboxID, err)
	}
	defer errs.Undo(&err, func() error {
		return n.change(b, func(s *Sandbox) { s.Ports = s.Ports[:len(s.Ports)-len(got)] })
	})
	if err := n.open(b, elems); err != nil {
		return nil, fmt.Errorf("publish ports of sandbox %s: %w", sandboxID, err)
	}
	n.mu.Lock()
	b.held = append(b.held, held...)
	n.mu.Unlock()
	return got, nil
}

// bind chooses and reserves the host's side of ports.
func (n *Networks) bind(b *box, want []Port) (got []Port, held []int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() {
		if err != nil {
			closeAll(held)
			n.ports.remove(got)
		}
	}()
	ep := b.gateway()
	if ep == nil {
		return nil, nil, fmt.Errorf("publish ports of sandbox %s: it is in no network with a way out: %w", b.ID, errdefs.ErrFailedPrecondition)
	}
	for _, p := range want {
		if err := p.check(); err != nil {
			return got, held, err
		}
		if !p.HostIP.IsValid() {
			p.HostIP = n.publishAddress(ep.NetworkID)
		}
		p.HostIP = p.HostIP.Unmap()
		if _, ok := sameFamily(ep.Addrs, p.HostIP); !ok {
			return got, held, fmt.Errorf("publish %s: sandbox %s has no address of that family: %w", p.text(), b.ID, errdefs.ErrInvalidArgument)
		}
		p, fd, err := n.reserve(p)
		if err != nil {
			return got, held, err
		}
		n.ports[p.host()] = b.ID
		got = append(got, p)
		if fd >= 0 {
			held = append(held, fd)
		}
	}
	return got, held, nil
}

func (p Port) check() error {
	switch {
	case protocols[p.Proto] == 0:
		return fmt.Errorf("publish port: protocol %q is not tcp, udp or sctp: %w", p.Proto, errdefs.ErrInvalidArgument)
	case p.ContainerPort == 0:
		return fmt.Errorf("publish port: no container port: %w", errdefs.ErrInvalidArgument)
	case p.HostPortEnd != 0 && p.HostPortEnd < p.HostPort:
		return fmt.Errorf("publish port: range %d-%d is empty: %w", p.HostPort, p.HostPortEnd, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (p Port) text() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(p.HostIP, p.HostPort), p.Proto)
}

func (n *Networks) publishAddress(networkID string) netip.Addr {
	if br := n.bridges[networkID]; br != nil && br.PublishAddress.IsValid() {
		return br.PublishAddress
	}
	return n.cfg.PublishAddress
}

// reserve binds a socket to the host's side of p, or to the first free port of
// its range, so that no program of the host takes it, and one that has it is
// noticed. No packet reaches the socket. n.mu is held.
func (n *Networks) reserve(p Port) (_ Port, fd int, err error) {
	last := max(p.HostPort, p.HostPortEnd)
	for ; ; p.HostPort++ {
		fd, err = n.reserveOne(&p)
		if err == nil || p.HostPort >= last || !errdefs.IsAlreadyExists(err) {
			p.HostPortEnd = 0
			return p, fd, err
		}
	}
}

func (n *Networks) reserveOne(p *Port) (int, error) {
	if p.HostPort != 0 && n.ports.taken(p.host()) {
		return -1, allocated(*p)
	}
	fd, got, err := bindSocket(*p)
	switch {
	case errors.Is(err, unix.EADDRINUSE) && n.ports.near(p.host()):
		return -1, allocated(*p)
	case errors.Is(err, unix.EADDRINUSE):
		return -1, errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("bind host port %s: address already in use", p.text()))
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return -1, fmt.Errorf("bind host port %s: no interface of the host has that address: %w", p.text(), errdefs.ErrInvalidArgument)
	case err != nil:
		return -1, fmt.Errorf("bind host port %s: %w", p.text(), err)
	}
	p.HostPort = got
	return fd, nil
}

// allocated has the words that clients of the Docker API look for.
func allocated(p Port) error {
	return errdefs.ErrAlreadyExists.WithMessage(fmt.Sprintf("Bind for %s failed: port is already allocated", netip.AddrPortFrom(p.HostIP, p.HostPort)))
}

// bindSocket binds, and for TCP listens: a bound socket alone would let others
// bind with SO_REUSEADDR. A kernel without SCTP reserves nothing (-1).
func bindSocket(p Port) (fd int, got uint16, err error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if p.HostIP.Is6() {
		family = unix.AF_INET6
	}
	if p.Proto == "udp" {
		kind = unix.SOCK_DGRAM
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(protocols[p.Proto]))
	if p.Proto == "sctp" && errors.Is(err, unix.EPROTONOSUPPORT) {
		return -1, p.HostPort, nil
	}
	if err != nil {
		return -1, 0, os.NewSyscallError("socket", err)
	}
	defer errs.Undo(&err, func() error { return unix.Close(fd) })
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return -1, 0, os.NewSyscallError("setsockopt", err)
		}
	}
	if p.Proto == "tcp" {
		// Connections of an earlier listener that linger in TIME_WAIT do not matter.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return -1, 0, os.NewSyscallError("setsockopt", err)
		}
	}
	if err := unix.Bind(fd, sockaddr(p.HostIP, p.HostPort)); err != nil {
		return -1, 0, os.NewSyscallError("bind", err)
	}
	if p.Proto != "udp" {
		if err := unix.Listen(fd, 0); err != nil {
			return -1, 0, os.NewSyscallError("listen", err)
		}
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return -1, 0, os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		got = uint16(sa.Port)
	case *unix.SockaddrInet6:
		got = uint16(sa.Port)
	}
	return fd, got, nil
}

func sockaddr(ip netip.Addr, port uint16) unix.Sockaddr {
	if ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: int(port)}
	}
	return &unix.SockaddrInet6{Addr: ip.As16(), Port: int(port)}
}

// open puts elements of b into the kernel's maps; if somebody flushed the host's
// rules, everything is made anew. work is held.
func (n *Networks) open(b *box, elems []element) error {
	if err := n.hairpin(b); err != nil {
		return err
	}
	err := n.rules.open(elems)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	b.elements = append(b.elements, elems...)
	if err != nil {
		n.log.Warn("the nftables tables were gone, they are made anew")
		return n.rules.replace(n.ruleset())
	}
	return nil
}

// hairpin lets a sandbox reach itself by its published ports: with br_netfilter
// in the kernel the bridge translates the destination while it forwards, and would
// not send a frame out where it came in.
func (n *Networks) hairpin(b *box) error {
	ep := b.gateway()
	if ep == nil {
		return nil
	}
	link, err := n.links.LinkByName(ep.HostIf)
	if err == nil {
		err = n.links.LinkSetHairpin(link, true)
	}
	if err != nil {
		return fmt.Errorf("set hairpin mode of %s: %w", ep.HostIf, err)
	}
	return nil
}

// shut takes all elements of b out of the kernel's maps. work is held.
func (n *Networks) shut(b *box) error {
	n.mu.Lock()
	elems := b.elements
	b.elements = nil
	n.mu.Unlock()
	err := n.rules.shut(elems)
	if errors.Is(err, os.ErrNotExist) {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.log.Warn("the nftables tables were gone, they are made anew")
		return n.rules.replace(n.ruleset())
	}
	return err
}

// unpublish closes all published ports of b. work is held.
func (n *Networks) unpublish(b *box) error {
	err := n.shut(b)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports.remove(b.Ports)
	b.letGo()
	return err
}

// redirect makes the published ports lead to where the way out is now. work is held.
func (n *Networks) redirect(b *box) error {
	elems := elements(b.Ports, b.wayOut())
	if slices.Equal(elems, b.elements) {
		return nil
	}
	if err := n.shut(b); err != nil {
		return err
	}
	return n.open(b, elems)
}

// resume holds the published ports of a sandbox of an earlier daemon again. A port
// that a program of the host took meanwhile still leads to the sandbox.
func (n *Networks) resume(b *box) error {
	b.work.Lock()
	defer b.work.Unlock()
	for _, p := range b.Ports {
		fd, _, err := bindSocket(p)
		if err != nil {
			n.log.Warn("a published port cannot be held again", "sandbox", b.ID, "port", p.text(), "error", err)
			continue
		}
		if fd >= 0 {
			b.held = append(b.held, fd)
		}
	}
	ns, done, err := b.namespace()
	if err != nil {
		return err
	}
	defer done()
	return n.serveNames(b, ns)
}

func (n *Networks) forgetPorts(ports []Port) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports.remove(ports)
}

// letGo closes the sockets that hold b's ports.
func (b *box) letGo() {
	closeAll(b.held)
	b.held = nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
