package network

import (
	"crypto/rand"
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// pools are where subnets are chosen from when nobody says one: the private
// prefixes of RFC 1918 that home and office networks use least, in subnets of
// the given number of bits.
func pools() []pool4 {
	return []pool4{
		{netip.MustParsePrefix("172.17.0.0/16"), 16},
		{netip.MustParsePrefix("172.18.0.0/15"), 16},
		{netip.MustParsePrefix("172.20.0.0/14"), 16},
		{netip.MustParsePrefix("172.24.0.0/13"), 16},
		{netip.MustParsePrefix("192.168.0.0/16"), 20},
		{netip.MustParsePrefix("10.128.0.0/9"), 20},
	}
}

type pool4 struct {
	prefix netip.Prefix
	bits   int
}

// freeSubnet chooses an IPv4 prefix that overlaps none of taken. Errors:
// ResourceExhausted.
func freeSubnet(taken []netip.Prefix) (netip.Prefix, error) {
	for _, pool := range pools() {
		for a := pool.prefix.Addr(); pool.prefix.Contains(a); {
			p := netip.PrefixFrom(a, pool.bits)
			if !overlapsAny(p, taken) {
				return p, nil
			}
			a = last(p).Next()
		}
	}
	return netip.Prefix{}, fmt.Errorf("choose subnet: every one is used by a route of the host: %w", errdefs.ErrResourceExhausted)
}

// uniqueLocal makes a random prefix of RFC 4193 (section 3.2): nobody else has it.
func uniqueLocal() netip.Prefix {
	b := [16]byte{0xfd}
	rand.Read(b[1:8])
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

func overlapsAny(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if p.Overlaps(t) {
			return true
		}
	}
	return false
}

// routed gives the prefixes that the host has routes to, without default routes
// and without those of device.
func routed(h *netlink.Handle, device string) ([]netip.Prefix, error) {
	own := 0
	if link, err := h.LinkByName(device); err == nil {
		own = link.Attrs().Index
	}
	routes, err := dumped(func() ([]netlink.Route, error) { return h.RouteList(nil, unix.AF_INET) })
	if err != nil {
		return nil, fmt.Errorf("list routes of the host: %w", err)
	}
	var prefixes []netip.Prefix
	for _, r := range routes {
		if r.Dst == nil || r.LinkIndex == own {
			continue
		}
		ones, _ := r.Dst.Mask.Size()
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		if ok && ones > 0 {
			prefixes = append(prefixes, netip.PrefixFrom(a.Unmap(), ones))
		}
	}
	return prefixes, nil
}

// complete fills in what s leaves open, and refuses what cannot be. Errors:
// InvalidArgument.
func (s Subnet) complete() (Subnet, error) {
	bad := func(format string, args ...any) (Subnet, error) {
		return Subnet{}, fmt.Errorf("subnet %s: %s: %w", s.Prefix, fmt.Sprintf(format, args...), errdefs.ErrInvalidArgument)
	}
	switch {
	case !s.Prefix.IsValid():
		return bad("no prefix")
	case s.Prefix != s.Prefix.Masked():
		return bad("host bits are set, the prefix is %s", s.Prefix.Masked())
	case s.Prefix.Addr().Is4In6() || s.Prefix.Addr().IsMulticast() || s.Prefix.Addr().IsLoopback():
		return bad("not a unicast prefix")
	case s.Prefix.Bits() > s.Prefix.Addr().BitLen()-2:
		return bad("too small for a gateway and a container")
	}
	if !s.Range.IsValid() {
		s.Range = s.Prefix
	}
	if !s.Prefix.Contains(s.Range.Addr()) || s.Range.Bits() < s.Prefix.Bits() {
		return bad("range %s is outside", s.Range)
	}
	s.Range = s.Range.Masked()
	if !s.Gateway.IsValid() {
		s.Gateway = s.Range.Addr()
		if s.Gateway == s.Prefix.Addr() {
			s.Gateway = s.Gateway.Next()
		}
	}
	if !s.Prefix.Contains(s.Gateway) || s.Gateway == s.Prefix.Addr() {
		return bad("gateway %s is not an address in it", s.Gateway)
	}
	for name, a := range s.Reserved {
		if !s.Prefix.Contains(a) {
			return bad("reserved address %s (%s) is outside", a, name)
		}
	}
	return s, nil
}
