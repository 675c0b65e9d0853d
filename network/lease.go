package network

import (
	"fmt"
	"net/netip"

	"github.com/containerd/errdefs"
)

// leases are the addresses of one subnet that are taken. They live in memory
// alone: what is taken is what the sandboxes' records say.
type leases struct {
	sub   Subnet
	taken map[netip.Addr]bool
	// low is an address below which none is free.
	low netip.Addr
}

func newLeases(sub Subnet) *leases {
	l := &leases{sub: sub, taken: map[netip.Addr]bool{}, low: sub.Range.Addr()}
	l.taken[sub.Prefix.Addr()] = true // the network itself, or the anycast address of its routers
	if sub.Prefix.Addr().Is4() && sub.Prefix.Bits() < 31 {
		l.taken[last(sub.Prefix)] = true // broadcast
	}
	if sub.Gateway.IsValid() {
		l.taken[sub.Gateway] = true
	}
	for _, a := range sub.Reserved {
		l.taken[a] = true
	}
	return l
}

// next takes the lowest free address. Errors: ResourceExhausted.
func (l *leases) next() (netip.Addr, error) {
	for a := l.low; l.sub.Range.Contains(a); a = a.Next() {
		if !l.taken[a] {
			l.taken[a], l.low = true, a.Next()
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("no address left in %s: %w", l.sub.Range, errdefs.ErrResourceExhausted)
}

// take takes one address. Errors: AlreadyExists.
func (l *leases) take(a netip.Addr) error {
	if l.taken[a] {
		return fmt.Errorf("address %s is taken: %w", a, errdefs.ErrAlreadyExists)
	}
	l.taken[a] = true
	return nil
}

func (l *leases) free(a netip.Addr) {
	delete(l.taken, a)
	if l.sub.Range.Contains(a) && a.Less(l.low) {
		l.low = a
	}
}

// last is the highest address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// lease takes an address of each of the bridge's subnets, the wanted ones where
// there are such. n.mu is held.
func (br *bridge) lease(want []netip.Addr) (got []netip.Prefix, err error) {
	defer func() {
		if err != nil {
			br.unlease(got)
			got = nil
		}
	}()
	for _, w := range want {
		if br.leasesOf(w) == nil {
			return got, fmt.Errorf("address %s is in no subnet of network %s: %w", w, br.Name, errdefs.ErrInvalidArgument)
		}
	}
	for _, l := range br.leases {
		a, err := l.pick(want)
		if err != nil {
			return got, fmt.Errorf("lease address in network %s: %w", br.Name, err)
		}
		got = append(got, netip.PrefixFrom(a, l.sub.Prefix.Bits()))
	}
	return got, nil
}

func (l *leases) pick(want []netip.Addr) (netip.Addr, error) {
	for _, w := range want {
		if l.sub.Prefix.Contains(w) {
			return w, l.take(w)
		}
	}
	return l.next()
}

func (br *bridge) unlease(addrs []netip.Prefix) {
	for _, p := range addrs {
		if l := br.leasesOf(p.Addr()); l != nil {
			l.free(p.Addr())
		}
	}
}

func (br *bridge) leasesOf(a netip.Addr) *leases {
	for _, l := range br.leases {
		if l.sub.Prefix.Contains(a) {
			return l
		}
	}
	return nil
}
