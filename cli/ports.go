package cli

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// portRange is a run of ports that are shown as one.
type portRange struct {
	ip          string
	proto       string
	first, last uint16
}

func (r portRange) String() string {
	n := fmt.Sprint(r.first)
	if r.last != r.first {
		n = fmt.Sprintf("%d-%d", r.first, r.last)
	}
	if r.ip == "" {
		return n + "/" + r.proto
	}
	return net.JoinHostPort(r.ip, n) + "->" + n + "/" + r.proto
}

// ports shows a container's ports: "0.0.0.0:8000-8002->8000-8002/tcp, 53/udp".
// Neighbours that are published on their own number are one range; those that
// are published on another number stand alone, at the end.
func ports(list []container.PortSummary) string {
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), a.IP.Compare(b.IP), cmp.Compare(a.PublicPort, b.PublicPort), cmp.Compare(a.Type, b.Type))
	})
	var ranges []*portRange
	var other []string
	open := map[string]*portRange{} // the range that may still grow, by address and protocol
	for _, p := range list {
		ip := ""
		if p.IP.IsValid() {
			ip = p.IP.String()
			if p.PublicPort != p.PrivatePort {
				other = append(other, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(ip, fmt.Sprint(p.PublicPort)), p.PrivatePort, p.Type))
				continue
			}
		}
		key := ip + "/" + p.Type
		if r := open[key]; r != nil && p.PrivatePort == r.last+1 {
			r.last = p.PrivatePort
			continue
		} else if r != nil && p.PrivatePort == r.last {
			continue
		}
		r := &portRange{ip: ip, proto: p.Type, first: p.PrivatePort, last: p.PrivatePort}
		open[key] = r
		ranges = append(ranges, r)
	}
	out := make([]string, 0, len(ranges)+len(other))
	for _, r := range ranges {
		out = append(out, r.String())
	}
	return strings.Join(append(out, other...), ", ")
}
