package network

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// namesTTL is short, as a container that starts again may have another address.
const namesTTL = 5 // seconds

// local answers what is about endpoints of the sandbox's networks, else nil.
func (r *resolver) local(query *dns.Msg, q dns.Question) *dns.Msg {
	name := strings.ToLower(strings.TrimSuffix(q.Name, "."))
	if a, ok := reverse(name); ok {
		return r.localPointer(query, q, a)
	}
	addrs := r.lookup(name)
	if addrs == nil {
		return nil
	}
	m := fail(query, dns.RcodeSuccess)
	m.Authoritative = true
	for _, a := range addrs {
		head := dns.RR_Header{Name: q.Name, Class: dns.ClassINET, Ttl: namesTTL}
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			head.Rrtype = dns.TypeA
			m.Answer = append(m.Answer, &dns.A{Hdr: head, A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			head.Rrtype = dns.TypeAAAA
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: head, AAAA: a.AsSlice()})
		}
	}
	return m
}

// lookup gives the addresses of endpoints that have the name, or NAME.NETWORK, in
// networks of the sandbox. Those of one name come in another order each time.
func (r *resolver) lookup(name string) []netip.Addr {
	var addrs []netip.Addr
	name = r.linked(name)
	r.neighbours(func(ep *Endpoint) bool {
		short := strings.TrimSuffix(name, "."+strings.ToLower(ep.Network))
		if slices.ContainsFunc(ep.Aliases, func(alias string) bool {
			return strings.EqualFold(alias, name) || strings.EqualFold(alias, short)
		}) {
			for _, p := range ep.Addrs {
				addrs = append(addrs, p.Addr())
			}
		}
		return true
	})
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	return addrs
}

// linked is what a link of the sandbox makes of the name.
func (r *resolver) linked(name string) string {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	for _, ep := range r.b.Endpoints {
		for alias, target := range ep.Links {
			if strings.EqualFold(alias, name) {
				return strings.ToLower(target)
			}
		}
	}
	return name
}

// localPointer answers for addresses of the sandbox's networks, nil for others.
func (r *resolver) localPointer(query *dns.Msg, q dns.Question, a netip.Addr) *dns.Msg {
	var name string
	r.neighbours(func(ep *Endpoint) bool {
		for _, p := range ep.Addrs {
			if p.Addr() == a && len(ep.Aliases) > 0 {
				name = dns.Fqdn(ep.Aliases[0] + "." + ep.Network)
			}
		}
		return name == ""
	})
	switch {
	case name != "":
		m := fail(query, dns.RcodeSuccess)
		m.Authoritative = true
		if q.Qtype == dns.TypePTR {
			head := dns.RR_Header{Name: q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: namesTTL}
			m.Answer = append(m.Answer, &dns.PTR{Hdr: head, Ptr: name})
		}
		return m
	case r.owns(a):
		return fail(query, dns.RcodeNameError)
	}
	return nil
}

// neighbours calls f with every endpoint of the sandbox's named networks, until
// it returns false.
func (r *resolver) neighbours(f func(*Endpoint) bool) {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	in := r.b.namedNetworks()
	for _, b := range r.n.boxes {
		for i := range b.Endpoints {
			if slices.Contains(in, b.Endpoints[i].NetworkID) && !f(&b.Endpoints[i]) {
				return
			}
		}
	}
}

// owns says whether a is of a subnet of the sandbox's named networks.
func (r *resolver) owns(a netip.Addr) bool {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	return slices.ContainsFunc(r.b.namedNetworks(), func(id string) bool {
		br := r.n.bridges[id]
		return br != nil && br.leasesOf(a) != nil
	})
}

// reverse reads the address out of a name below in-addr.arpa (RFC 1035, section
// 3.5) or ip6.arpa (RFC 3596, section 2.5).
func reverse(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		labels := strings.Split(rest, ".")
		slices.Reverse(labels)
		a, err := netip.ParseAddr(strings.Join(labels, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa")
	digits := strings.Split(rest, ".")
	if !ok || len(digits) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(digits)
	var text strings.Builder
	for i, d := range digits {
		if i > 0 && i%4 == 0 {
			text.WriteByte(':')
		}
		text.WriteString(d)
	}
	a, err := netip.ParseAddr(text.String())
	return a, err == nil
}
