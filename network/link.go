package network

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// byIndex names a link by its index alone, which is all that most calls need.
func byIndex(index int) netlink.Link {
	return &netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// wire is a veth pair: one end in the host, named after the daemon, the other in
// a namespace.
type wire struct {
	name         string // of the host's end
	outer, inner int    // indexes of the two ends
}

// vethPrefix is how the names of the host's ends begin: seven bytes that tell one
// daemon's from another's and from other programs'.
func vethPrefix(bridge string) string {
	h := fnv.New32a()
	h.Write([]byte(bridge))
	return fmt.Sprintf("gv%05x", h.Sum32()&0xfffff)
}

// newWire makes a veth pair with its inner end already in ns: moving it there
// later would wait for an RCU grace period, some 20 ms.
func (n *Networks) newWire(ns *namespace, ifname string) (w wire, err error) {
	var b [4]byte
	rand.Read(b[:])
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("%s%x", n.veths, b)
	// Else the kernel keeps one for each processor that there could be, and uses one (5.15).
	attrs.NumTxQueues, attrs.NumRxQueues = 1, 1
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: ifname, PeerNamespace: netlink.NsFd(ns.fd)}
	err = n.links.LinkAdd(veth)
	if errors.Is(err, unix.EEXIST) {
		// What a daemon that was killed began is on its way out (Networks.sweep).
		n.reaper.settle()
		err = n.links.LinkAdd(veth)
	}
	if err != nil {
		return wire{}, fmt.Errorf("add veth pair %s, %s: %w", attrs.Name, ifname, err)
	}
	defer errs.Undo(&err, func() error { return n.links.LinkDel(veth) })
	inner, err := ns.links.LinkByName(ifname)
	if err != nil {
		return wire{}, fmt.Errorf("find %s in the namespace: %w", ifname, err)
	}
	// A port of a bridge needs no address of its own, nor the traffic of finding one.
	if err := sysctlIfThere("net/ipv6/conf/"+attrs.Name+"/disable_ipv6", "1"); err != nil {
		return wire{}, err
	}
	w = wire{name: attrs.Name, outer: veth.Index, inner: inner.Attrs().Index}
	if err := n.links.LinkSetUp(byIndex(w.outer)); err != nil {
		return wire{}, fmt.Errorf("set %s up: %w", w.name, err)
	}
	if err := ns.links.LinkSetUp(byIndex(w.inner)); err != nil {
		return wire{}, fmt.Errorf("set %s up: %w", ifname, err)
	}
	return w, nil
}

// plug puts the wire's outer end on the network's bridge.
func (n *Networks) plug(w wire, br *bridge) error {
	if br.MTU > 0 {
		if err := n.links.LinkSetMTU(byIndex(w.outer), br.MTU); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", w.name, br.MTU, err)
		}
	}
	if err := n.links.LinkSetMasterByIndex(byIndex(w.outer), br.index); err != nil {
		return fmt.Errorf("put %s on bridge %s: %w", w.name, br.Device, err)
	}
	if br.Isolated {
		if err := n.links.LinkSetIsolated(byIndex(w.outer), true); err != nil {
			return fmt.Errorf("isolate %s on bridge %s: %w", w.name, br.Device, err)
		}
	}
	return nil
}

// address gives the inner end its addresses.
func (ns *namespace) address(w wire, ep *Endpoint, mtu int) error {
	inner := byIndex(w.inner)
	if mtu > 0 {
		if err := ns.links.LinkSetMTU(inner, mtu); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", ep.IfName, mtu, err)
		}
	}
	if err := ns.links.LinkSetHardwareAddr(inner, ep.MAC); err != nil {
		return fmt.Errorf("set MAC address of %s to %s: %w", ep.IfName, ep.MAC, err)
	}
	for _, p := range ep.Addrs {
		if p.Addr().Is6() {
			err := ns.inside(func() error {
				return sysctl("net/ipv6/conf/"+ep.IfName+"/disable_ipv6", "0")
			})
			if err != nil {
				return err
			}
		}
		if err := ns.links.AddrAdd(inner, addr(p)); err != nil {
			return fmt.Errorf("add address %s to %s: %w", p, ep.IfName, err)
		}
	}
	return nil
}

// route makes the gateways the namespace's way out.
func (ns *namespace) route(index int, gateways []netip.Addr) error {
	for _, gw := range gateways {
		r := &netlink.Route{LinkIndex: index, Gw: gw.AsSlice()}
		if err := ns.links.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add default route by %s: %w", gw, err)
		}
	}
	return nil
}

// addr is p for netlink. Duplicate address detection is left out: addresses are
// leased, and it would keep an IPv6 address unusable for a second.
func addr(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// deleteLinks deletes many links for the price of one: the kernel waits for one
// RCU grace period for all members of a group that it deletes. A link that is
// not there any more is no error.
func deleteLinks(h *netlink.Handle, names []string) error {
	var b [4]byte
	rand.Read(b[:])
	group := nl.NativeEndian().Uint32(b[:])&0x7fffffff | 1
	var found int
	for _, name := range names {
		link, err := h.LinkByName(name)
		if err == nil {
			err = h.LinkSetGroup(link, int(group))
		}
		switch {
		case err == nil:
			found++
		case !gone(err):
			return fmt.Errorf("delete link %s: %w", name, err)
		}
	}
	if found == 0 {
		return nil
	}
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil && !gone(err) {
		return fmt.Errorf("delete %d links: %w", found, err)
	}
	return nil
}

// gone says that the link of a request does not exist.
func gone(err error) bool {
	return errors.As(err, &netlink.LinkNotFoundError{}) || errors.Is(err, unix.ENODEV)
}

// dumped lists until the kernel gives a whole list: one that changes while it is
// read is marked (NLM_F_DUMP_INTR), and may lack what did not change.
func dumped[T any](list func() ([]T, error)) (all []T, err error) {
	for range 50 {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}
