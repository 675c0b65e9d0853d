package network

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// Join gives the sandbox an interface in a network. Errors: NotFound,
// AlreadyExists (it is in that network; the wanted address is taken),
// InvalidArgument (host, none; an address outside the subnets),
// ResourceExhausted (no address left).
func (n *Networks) Join(ctx context.Context, sandboxID, ref string, o EndpointOptions) (_ Endpoint, err error) {
	b, done, err := n.hold(sandboxID)
	if err != nil {
		return Endpoint{}, err
	}
	defer done()
	br, ep, err := n.plan(b, ref, o)
	if err != nil {
		return Endpoint{}, fmt.Errorf("join sandbox %s to network %s: %w", sandboxID, ref, err)
	}
	defer errs.Undo(&err, func() error { n.unlease([]Endpoint{ep}); return nil })
	if err := n.connect(b, br, &ep); err != nil {
		return Endpoint{}, fmt.Errorf("join sandbox %s to network %s: %w", sandboxID, ref, err)
	}
	return ep, nil
}

// plan decides everything about the endpoint and leases its addresses.
func (n *Networks) plan(b *box, ref string, o EndpointOptions) (*bridge, Endpoint, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w, err := n.find(ref)
	if err != nil {
		return nil, Endpoint{}, err
	}
	br := n.bridges[w.ID]
	switch {
	case br == nil:
		return nil, Endpoint{}, fmt.Errorf("network %s has no endpoints: %w", w.Name, errdefs.ErrInvalidArgument)
	case b.endpoint(w.ID) != nil:
		return nil, Endpoint{}, fmt.Errorf("endpoint exists: %w", errdefs.ErrAlreadyExists)
	}
	ep := Endpoint{
		ID: newID(), SandboxID: b.ID, NetworkID: w.ID, Network: w.Name,
		IfName: o.IfName, MAC: o.MAC, Aliases: slices.Clone(o.Aliases), Links: maps.Clone(o.Links),
	}
	if ep.IfName == "" {
		ep.IfName = b.freeName()
	} else if err := b.checkName(ep.IfName); err != nil {
		return nil, Endpoint{}, err
	}
	if len(o.MAC) != 0 && (len(o.MAC) != 6 || o.MAC[0]&1 != 0) {
		return nil, Endpoint{}, fmt.Errorf("%s is not the MAC address of one interface: %w", o.MAC, errdefs.ErrInvalidArgument)
	}
	if ep.Addrs, err = br.lease(o.Addrs); err != nil {
		return nil, Endpoint{}, err
	}
	if !br.Internal {
		for _, s := range br.Subnets {
			ep.Gateways = append(ep.Gateways, s.Gateway)
		}
	}
	if len(ep.MAC) == 0 {
		ep.MAC = macOf(ep.Addrs)
	}
	return br, ep, nil
}

// macOf derives a MAC address from the IPv4 one, so that a neighbour that still
// remembers who had the address reaches its new owner.
func macOf(addrs []netip.Prefix) net.HardwareAddr {
	a4 := addrs[0].Addr().As4()
	return append(net.HardwareAddr{0x02, 0x42}, a4[:]...)
}

// freeName is the first of eth0, eth1, … that the sandbox does not have.
func (b *box) freeName() string {
	for i := 0; ; i++ {
		if name := fmt.Sprintf("eth%d", i); b.checkName(name) == nil {
			return name
		}
	}
}

func (b *box) checkName(name string) error {
	if len(name) >= unix.IFNAMSIZ || name == "." || name == ".." || name == "lo" || strings.ContainsAny(name, "/ :%\x00") {
		return fmt.Errorf("%q cannot be the name of an interface: %w", name, errdefs.ErrInvalidArgument)
	}
	for _, ep := range b.Endpoints {
		if ep.IfName == name {
			return fmt.Errorf("interface %s is that of network %s: %w", name, ep.Network, errdefs.ErrAlreadyExists)
		}
	}
	return nil
}

// connect does what plan decided. work is held.
func (n *Networks) connect(b *box, br *bridge, ep *Endpoint) (err error) {
	ns, done, err := b.namespace()
	if err != nil {
		return err
	}
	defer done()
	w, err := n.wireFor(b, ns, ep.IfName)
	if err != nil {
		return err
	}
	if b.fresh != nil {
		b.fresh = nil // its pair is taken, whatever becomes of it
		defer ns.close()
	}
	ep.HostIf = w.name
	defer errs.Undo(&err, func() error { return n.links.LinkDel(byIndex(w.outer)) })
	if err := n.plug(w, br); err != nil {
		return err
	}
	if err := ns.address(w, ep, br.MTU); err != nil {
		return err
	}
	if b.gateway() == nil {
		if err := ns.route(w.inner, ep.Gateways); err != nil {
			return err
		}
	}
	if err := n.change(b, func(s *Sandbox) { s.Endpoints = append(s.Endpoints, *ep) }); err != nil {
		return err
	}
	return n.serveNames(b, ns)
}

// wireFor gives the veth pair that the namespace was prepared with, or a new one.
func (n *Networks) wireFor(b *box, ns *namespace, ifname string) (wire, error) {
	if b.fresh == nil {
		return n.newWire(ns, ifname)
	}
	w := b.fresh.wire
	if ifname == "eth0" {
		return w, nil
	}
	inner := byIndex(w.inner)
	if err := ns.links.LinkSetDown(inner); err != nil {
		return wire{}, fmt.Errorf("rename eth0 to %s: %w", ifname, err)
	}
	if err := ns.links.LinkSetName(inner, ifname); err != nil {
		return wire{}, fmt.Errorf("rename eth0 to %s: %w", ifname, err)
	}
	if err := ns.links.LinkSetUp(inner); err != nil {
		return wire{}, fmt.Errorf("rename eth0 to %s: %w", ifname, err)
	}
	return w, nil
}

// endpoint is the sandbox's endpoint in a network, nil if it has none.
func (b *box) endpoint(networkID string) *Endpoint {
	for i := range b.Endpoints {
		if b.Endpoints[i].NetworkID == networkID {
			return &b.Endpoints[i]
		}
	}
	return nil
}

// gateway is the endpoint that has the default route, nil if there is no way out.
func (b *box) gateway() *Endpoint {
	for i := range b.Endpoints {
		if len(b.Endpoints[i].Gateways) > 0 {
			return &b.Endpoints[i]
		}
	}
	return nil
}

// wayOut is the addresses that published ports lead to.
func (b *box) wayOut() []netip.Prefix {
	if ep := b.gateway(); ep != nil {
		return ep.Addrs
	}
	return nil
}

// SetAliases replaces the names of an endpoint. Errors: NotFound.
func (n *Networks) SetAliases(ctx context.Context, sandboxID, ref string, aliases []string) error {
	b, done, err := n.hold(sandboxID)
	if err != nil {
		return err
	}
	defer done()
	w, err := n.Network(ref)
	if err != nil {
		return err
	}
	if b.endpoint(w.ID) == nil {
		return fmt.Errorf("name sandbox %s in network %s: it is not in it: %w", sandboxID, w.Name, errdefs.ErrNotFound)
	}
	return n.change(b, func(s *Sandbox) {
		for i := range s.Endpoints {
			if s.Endpoints[i].NetworkID == w.ID {
				s.Endpoints[i].Aliases = slices.Clone(aliases)
			}
		}
	})
}

// Leave takes the sandbox out of a network. Published ports that led to it there
// lead to its next network with a way out. Errors: NotFound.
func (n *Networks) Leave(ctx context.Context, sandboxID, ref string) error {
	b, done, err := n.hold(sandboxID)
	if err != nil {
		return err
	}
	defer done()
	w, err := n.Network(ref)
	if err != nil {
		return err
	}
	ep := b.endpoint(w.ID)
	if ep == nil {
		return fmt.Errorf("leave network %s: sandbox %s is not in it: %w", w.Name, sandboxID, errdefs.ErrNotFound)
	}
	if err := n.leave(b, *ep); err != nil {
		return fmt.Errorf("leave network %s with sandbox %s: %w", w.Name, sandboxID, err)
	}
	return nil
}

func (n *Networks) leave(b *box, ep Endpoint) error {
	if err := deleteLinks(n.links, []string{ep.HostIf}); err != nil {
		return err
	}
	err := n.change(b, func(s *Sandbox) {
		s.Endpoints = slices.DeleteFunc(s.Endpoints, func(e Endpoint) bool { return e.ID == ep.ID })
	})
	if err != nil {
		return err
	}
	n.unlease([]Endpoint{ep})
	if err := n.redirect(b); err != nil {
		return err
	}
	next := b.gateway()
	if next == nil || len(ep.Gateways) == 0 {
		return nil
	}
	ns, done, err := b.namespace()
	if err != nil {
		return err
	}
	defer done()
	link, err := ns.links.LinkByName(next.IfName)
	if err != nil {
		return fmt.Errorf("find %s: %w", next.IfName, err)
	}
	return ns.route(link.Attrs().Index, next.Gateways)
}

// Stats gives the counters of the sandbox's interfaces by their name in it.
// Errors: NotFound.
func (n *Networks) Stats(ctx context.Context, sandboxID string) (map[string]Counters, error) {
	s, err := n.Sandbox(sandboxID)
	if err != nil {
		return nil, err
	}
	stats := make(map[string]Counters, len(s.Endpoints))
	for _, ep := range s.Endpoints {
		link, err := n.links.LinkByName(ep.HostIf)
		if err != nil {
			return nil, fmt.Errorf("read counters of sandbox %s: %s: %w", sandboxID, ep.IfName, err)
		}
		if st := link.Attrs().Statistics; st != nil {
			stats[ep.IfName] = mirrored(st)
		}
	}
	return stats, nil
}

// mirrored turns the counters of a veth pair's outer end into those of its inner
// end: what one sends, the other receives.
func mirrored(s *netlink.LinkStatistics) Counters {
	return Counters{
		RxBytes: s.TxBytes, RxPackets: s.TxPackets, RxErrors: s.TxErrors, RxDropped: s.TxDropped,
		TxBytes: s.RxBytes, TxPackets: s.RxPackets, TxErrors: s.RxErrors, TxDropped: s.RxDropped,
	}
}
