package network

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// bridge is a network of driver "bridge" and its device.
type bridge struct {
	Network
	index  int // of the device
	leases []*leases
}

func newBridge(w Network) *bridge {
	br := &bridge{Network: w}
	for _, s := range w.Subnets {
		br.leases = append(br.leases, newLeases(s))
	}
	return br
}

// Create makes a bridge network and fills in what w leaves open. Errors:
// AlreadyExists (the name), InvalidArgument, FailedPrecondition (a subnet that
// overlaps another network's).
func (n *Networks) Create(ctx context.Context, w Network) (_ Network, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if w, err = n.complete(w); err != nil {
		return Network{}, fmt.Errorf("create network %s: %w", w.Name, err)
	}
	br := newBridge(w)
	// The record comes first: Open finishes what it finds there.
	if err := n.networks.write(w.ID, w); err != nil {
		return Network{}, fmt.Errorf("create network %s: %w", w.Name, err)
	}
	defer errs.Undo(&err, func() error { return n.networks.remove(w.ID) })
	if err := n.setUp(br); err != nil {
		return Network{}, fmt.Errorf("create network %s: %w", w.Name, err)
	}
	n.bridges[w.ID] = br
	if err := n.rules.replace(n.ruleset()); err != nil {
		delete(n.bridges, w.ID)
		return Network{}, errors.Join(fmt.Errorf("create network %s: %w", w.Name, err), n.tearDown(br))
	}
	return w, nil
}

// complete checks w and fills it in. n.mu is held.
func (n *Networks) complete(w Network) (Network, error) {
	switch {
	case w.Name == "":
		return w, fmt.Errorf("no name: %w", errdefs.ErrInvalidArgument)
	case w.Driver != "" && w.Driver != "bridge":
		return w, fmt.Errorf("driver %q is not known, only bridge is: %w", w.Driver, errdefs.ErrInvalidArgument)
	case len(w.Device) >= unix.IFNAMSIZ || strings.ContainsAny(w.Device, "/ :%"):
		return w, fmt.Errorf("%q cannot be the name of a device: %w", w.Device, errdefs.ErrInvalidArgument)
	case w.MTU < 0 || w.MTU > 0 && w.MTU < 68 || w.MTU > 65535:
		return w, fmt.Errorf("MTU %d is not between 68 and 65535: %w", w.MTU, errdefs.ErrInvalidArgument)
	}
	for _, o := range n.list() {
		if o.Name == w.Name {
			return w, fmt.Errorf("network with name %s already exists: %w", w.Name, errdefs.ErrAlreadyExists)
		}
		if w.Device != "" && o.Device == w.Device {
			return w, fmt.Errorf("device %s is that of network %s: %w", w.Device, o.Name, errdefs.ErrAlreadyExists)
		}
	}
	w.ID, w.Driver, w.Created = newID(), "bridge", time.Now().UTC()
	if w.Device == "" {
		w.Device = "br-" + w.ID[:12]
	}
	var err error
	w.Subnets, err = n.subnets(w)
	return w, err
}

// subnets completes those that w asks for, and chooses what it does not.
func (n *Networks) subnets(w Network) ([]Subnet, error) {
	var own []netip.Prefix
	for _, br := range n.bridges {
		for _, s := range br.Subnets {
			own = append(own, s.Prefix)
		}
	}
	var subnets []Subnet
	has := map[bool]bool{} // whether there is one, by Is4
	for _, s := range w.Subnets {
		s, err := s.complete()
		if err != nil {
			return nil, err
		}
		if overlapsAny(s.Prefix, own) {
			return nil, fmt.Errorf("subnet %s overlaps with another network's: %w", s.Prefix, errdefs.ErrFailedPrecondition)
		}
		if has[s.Prefix.Addr().Is4()] {
			return nil, fmt.Errorf("subnet %s is the second of its family: %w", s.Prefix, errdefs.ErrInvalidArgument)
		}
		has[s.Prefix.Addr().Is4()] = true
		subnets = append(subnets, s)
	}
	if !has[true] {
		taken, err := routed(n.links, w.Device)
		if err != nil {
			return nil, err
		}
		p, err := freeSubnet(append(taken, own...))
		if err != nil {
			return nil, err
		}
		s, err := Subnet{Prefix: p}.complete()
		if err != nil {
			return nil, err
		}
		subnets = slices.Insert(subnets, 0, s)
	}
	if w.IPv6 && !has[false] {
		s, err := Subnet{Prefix: uniqueLocal()}.complete()
		if err != nil {
			return nil, err
		}
		subnets = append(subnets, s)
	}
	slices.SortFunc(subnets, func(a, b Subnet) int { return a.Prefix.Addr().Compare(b.Prefix.Addr()) })
	return subnets, nil
}

// setUp makes the bridge's device, or takes the one that is there, and gives it
// what it lacks.
func (n *Networks) setUp(br *bridge) error {
	link, err := n.links.LinkByName(br.Device)
	switch {
	case gone(err):
		if link, err = n.addBridge(br); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("find device %s: %w", br.Device, err)
	case link.Type() != "bridge":
		return fmt.Errorf("device %s is a %s, not a bridge: %w", br.Device, link.Type(), errdefs.ErrFailedPrecondition)
	}
	br.index = link.Attrs().Index
	if err := n.configure(br); err != nil {
		return err
	}
	if err := n.links.LinkSetUp(link); err != nil {
		return fmt.Errorf("set bridge %s up: %w", br.Device, err)
	}
	return n.forward(br)
}

// addBridge makes the device with a MAC address of its own: without one it would
// change with the ports that come and go, and containers would lose their gateway.
func (n *Networks) addBridge(br *bridge) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = br.Device, br.MTU
	attrs.HardwareAddr = net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	rand.Read(attrs.HardwareAddr[2:])
	link := &netlink.Bridge{LinkAttrs: attrs}
	if err := n.links.LinkAdd(link); err != nil {
		return nil, fmt.Errorf("add bridge %s: %w", br.Device, err)
	}
	return link, nil
}

func (n *Networks) configure(br *bridge) error {
	conf := func(family, key string) string { return filepath.Join("net", family, "conf", br.Device, key) }
	v6 := "1"
	for _, s := range br.Subnets {
		if s.Prefix.Addr().Is6() {
			v6 = "0"
		}
	}
	// Answers to the host's own loopback come back by the bridge as packets for
	// 127.0.0.1; the chain "unspoof" drops those that are not such answers.
	if err := errors.Join(
		sysctl(conf("ipv4", "route_localnet"), "1"),
		sysctlIfThere(conf("ipv6", "disable_ipv6"), v6),
	); err != nil {
		return err
	}
	for _, s := range br.Subnets {
		a := addr(netip.PrefixFrom(s.Gateway, s.Prefix.Bits()))
		if err := n.links.AddrReplace(byIndex(br.index), a); err != nil {
			return fmt.Errorf("give bridge %s the address %s: %w", br.Device, a.IPNet, err)
		}
	}
	return nil
}

// forward turns on forwarding for the families of br.
func (n *Networks) forward(br *bridge) error {
	for _, s := range br.Subnets {
		name := "net/ipv4/ip_forward"
		if s.Prefix.Addr().Is6() {
			name = "net/ipv6/conf/all/forwarding"
		}
		if err := n.turnOn(name); err != nil {
			return err
		}
	}
	return nil
}

func (n *Networks) tearDown(br *bridge) error {
	if err := n.links.LinkDel(byIndex(br.index)); err != nil && !gone(err) {
		return fmt.Errorf("delete bridge %s: %w", br.Device, err)
	}
	return nil
}

// Remove deletes a network and its bridge. Errors: NotFound, PermissionDenied
// (the three known ones), FailedPrecondition (it has endpoints).
func (n *Networks) Remove(ctx context.Context, ref string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	w, err := n.find(ref)
	if err != nil {
		return err
	}
	if w.Name == Default || w.Name == Host || w.Name == None {
		return fmt.Errorf("%s is a pre-defined network and cannot be removed: %w", w.Name, errdefs.ErrPermissionDenied)
	}
	if eps := n.endpoints(w.ID); len(eps) > 0 {
		return fmt.Errorf("error while removing network: network %s id %s has active endpoints: %w", w.Name, w.ID, errdefs.ErrFailedPrecondition)
	}
	br := n.bridges[w.ID]
	if err := n.tearDown(br); err != nil {
		return fmt.Errorf("remove network %s: %w", w.Name, err)
	}
	if err := n.networks.remove(w.ID); err != nil {
		return fmt.Errorf("remove network %s: %w", w.Name, err)
	}
	delete(n.bridges, w.ID)
	if err := n.rules.replace(n.ruleset()); err != nil {
		return fmt.Errorf("remove network %s: %w", w.Name, err)
	}
	return nil
}

// Network finds a network by name, ID or unambiguous prefix of an ID. Errors:
// NotFound, InvalidArgument (ambiguous).
func (n *Networks) Network(ref string) (Network, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.find(ref)
}

func (n *Networks) find(ref string) (Network, error) {
	var byPrefix []Network
	all := n.list()
	for _, w := range all {
		if w.ID == ref || w.Name == ref {
			return w, nil
		}
		if ref != "" && strings.HasPrefix(w.ID, ref) {
			byPrefix = append(byPrefix, w)
		}
	}
	switch len(byPrefix) {
	case 0:
		return Network{}, fmt.Errorf("network %s not found: %w", ref, errdefs.ErrNotFound)
	case 1:
		return byPrefix[0], nil
	}
	return Network{}, fmt.Errorf("network %s is ambiguous (%d matches found based on ID prefix): %w", ref, len(byPrefix), errdefs.ErrInvalidArgument)
}

// List gives all networks, the three known ones first, then by creation.
func (n *Networks) List() []Network {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.list()
}

func (n *Networks) list() []Network {
	var all, own []Network
	for _, br := range n.bridges {
		if br.Name == Default {
			all = append(all, br.Network)
		} else {
			own = append(own, br.Network)
		}
	}
	slices.SortFunc(own, func(a, b Network) int { return a.Created.Compare(b.Created) })
	return slices.Concat(all, n.fixed, own)
}

// Endpoints gives the endpoints of a network, by sandbox ID. Errors: NotFound.
func (n *Networks) Endpoints(ref string) ([]Endpoint, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	w, err := n.find(ref)
	if err != nil {
		return nil, err
	}
	return n.endpoints(w.ID), nil
}

func (n *Networks) endpoints(id string) []Endpoint {
	var eps []Endpoint
	for _, b := range n.boxes {
		if ep := b.endpoint(id); ep != nil {
			eps = append(eps, *ep)
		}
	}
	slices.SortFunc(eps, func(a, b Endpoint) int { return strings.Compare(a.SandboxID, b.SandboxID) })
	return eps
}

// fixedNetworks are the known networks that have no device. Their IDs stay the
// same for one root.
func fixedNetworks(root string, created time.Time) []Network {
	fixed := func(name, driver string) Network {
		sum := sha256.Sum256([]byte(root + "\x00" + name))
		return Network{ID: hex.EncodeToString(sum[:]), Name: name, Driver: driver, Created: created}
	}
	return []Network{fixed(Host, "host"), fixed(None, "null")}
}

// newID is 64 random hexadecimal digits.
func newID() string {
	var b [32]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
