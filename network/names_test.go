package network

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// resolve asks the sandbox's name server, as a container's resolver would.
func (m machine) resolve(name string, kind uint16, proto string) (rcode int, answers []string, err error) {
	err = m.inside(func() error {
		conn, err := net.DialTimeout(proto, "127.0.0.11:53", patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		client := dns.Client{Net: proto, Timeout: patience}
		got, _, err := client.ExchangeWithConn(new(dns.Msg).SetQuestion(name, kind), &dns.Conn{Conn: conn})
		if err != nil {
			return err
		}
		rcode = got.Rcode
		for _, rr := range got.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				answers = append(answers, rr.A.String())
			case *dns.AAAA:
				answers = append(answers, rr.AAAA.String())
			case *dns.PTR:
				answers = append(answers, rr.Ptr)
			}
		}
		slices.Sort(answers)
		return nil
	})
	return rcode, answers, err
}

// finds fails the test unless the name has exactly these answers.
func (m machine) finds(what, name string, kind uint16, want ...string) {
	m.t.Helper()
	for _, proto := range []string{"udp", "tcp"} {
		rcode, got, err := m.resolve(name, kind, proto)
		if err != nil || rcode != dns.RcodeSuccess || !slices.Equal(got, want) {
			m.t.Errorf("%s: %s over %s is %v (%s), %v; want %v", what, name, proto, got, dns.RcodeToString[rcode], err, want)
		}
	}
}

// knowsNot fails the test unless the name does not exist.
func (m machine) knowsNot(what, name string, kind uint16) {
	m.t.Helper()
	if rcode, got, err := m.resolve(name, kind, "udp"); err != nil || rcode != dns.RcodeNameError {
		m.t.Errorf("%s: %s is %v (%s), %v; want no such name", what, name, got, dns.RcodeToString[rcode], err)
	}
}

// serveNames answers queries for world.test. with addr, and counts all queries.
func (m machine) serveNames(addr netip.Addr) *atomic.Int64 {
	m.t.Helper()
	asked := new(atomic.Int64)
	var packets net.PacketConn
	check(m.t, m.inside(func() (err error) {
		packets, err = net.ListenPacket("udp", ":53")
		return err
	}))
	started := make(chan struct{})
	server := &dns.Server{
		PacketConn: packets, NotifyStartedFunc: func() { close(started) },
		Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
			asked.Add(1)
			a := fail(q, dns.RcodeNameError)
			if q.Question[0].Name == "world.test." {
				a = fail(q, dns.RcodeSuccess)
				a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "world.test.", Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: addr.AsSlice()}}
			}
			_ = w.WriteMsg(a)
		}),
	}
	go server.ActivateAndServe()
	<-started
	m.t.Cleanup(func() { check(m.t, server.Shutdown()) })
	return asked
}

// named makes a sandbox in a network that asks the outsider for names.
func (l *lab) named(id, network string, aliases ...string) machine {
	l.t.Helper()
	return l.sandbox(id, network, EndpointOptions{Aliases: aliases})
}

func (l *lab) sandbox(id, network string, o EndpointOptions) machine {
	l.t.Helper()
	s, err := l.NewSandbox(l.t.Context(), id, SandboxOptions{Network: network, DNS: []netip.Addr{l.outsider}})
	check(l.t, err)
	ep, err := l.Join(l.t.Context(), id, network, o)
	check(l.t, err)
	return l.at(s.Path, ep.Addrs[0].Addr())
}

func (l *lab) create(w Network) Network {
	l.t.Helper()
	w, err := l.Create(l.t.Context(), w)
	check(l.t, err)
	return w
}

func TestContainersFindEachOtherByName(t *testing.T) {
	l := newLab(t)
	asked := l.world().serveNames(l.outsider)
	l.create(Network{Name: "net"})
	l.create(Network{Name: "other"})
	a := l.named("a", "net", "a", "front")
	b := l.named("b", "net", "b", "back")
	b2 := l.named("b2", "net", "b2", "back")
	l.named("c", "other", "c")

	a.finds("an alias", "b.", dns.TypeA, b.ip.String())
	a.finds("in any case", "B.", dns.TypeA, b.ip.String())
	a.finds("with the network's name", "b.net.", dns.TypeA, b.ip.String())
	a.finds("itself", "front.", dns.TypeA, a.ip.String())
	a.finds("an alias of two", "back.", dns.TypeA, sorted(b.ip, b2.ip)...)
	a.finds("no IPv6 address is no error", "b.", dns.TypeAAAA)
	a.finds("the name of an address", arpa(t, b.ip), dns.TypePTR, "b.net.")
	a.knowsNot("another network's", "c.", dns.TypeA)
	a.finds("the world's", "world.test.", dns.TypeA, l.outsider.String())
	before := asked.Load()
	a.finds("the world's, remembered", "world.test.", dns.TypeA, l.outsider.String())
	if more := asked.Load() - before; more != 0 {
		t.Errorf("%d queries for a name that was just asked for", more)
	}

	linked := l.sandbox("d", "net", EndpointOptions{Links: map[string]string{"Database": "b"}})
	linked.finds("a link", "database.", dns.TypeA, b.ip.String())
	a.knowsNot("a link of another one", "database.", dns.TypeA)

	check(t, l.SetAliases(t.Context(), "b", "net", []string{"b", "renamed"}))
	a.finds("a new alias", "renamed.", dns.TypeA, b.ip.String())
	a.finds("an alias that another one keeps", "back.", dns.TypeA, b2.ip.String())

	l.crash()
	l.open("a", "b", "b2", "c", "d")
	a.finds("after a restart of the daemon", "renamed.", dns.TypeA, b.ip.String())
	linked.finds("a link after it", "database.", dns.TypeA, b.ip.String())

	check(t, l.Release(t.Context(), "b2"))
	a.knowsNot("a container that is gone", "back.", dns.TypeA)
}

func sorted(addrs ...netip.Addr) []string {
	var s []string
	for _, a := range addrs {
		s = append(s, a.String())
	}
	slices.Sort(s)
	return s
}

func arpa(t *testing.T, a netip.Addr) string {
	name, err := dns.ReverseAddr(a.String())
	check(t, err)
	return name
}

func TestTheDefaultNetworkHasNoNames(t *testing.T) {
	l := newLab(t)
	a := l.start("a", Default, EndpointOptions{Aliases: []string{"a"}})
	if rcode, got, err := a.resolve("a.", dns.TypeA, "udp"); err == nil {
		t.Errorf("127.0.0.11 answers %v (%s)", got, dns.RcodeToString[rcode])
	}
}

func TestAnInternalNetworkHasNoWayOut(t *testing.T) {
	l := newLab(t)
	asked := l.world().serveNames(l.outsider)
	l.create(Network{Name: "inner", Internal: true})
	a := l.named("a", "inner", "a")
	b := l.named("b", "inner", "b")
	b.serve("b", 80)
	l.world().serve("world", 80)
	a.reaches("inside", "tcp", b.ip, 80, "b")
	a.finds("inside", "b.", dns.TypeA, b.ip.String())
	a.misses("the world", "tcp", l.outsider, 80)
	// Not even with a route of its own: the host must refuse.
	eps, err := l.Endpoints("inner")
	check(t, err)
	gateway := eps[0].Addrs[0].Masked().Addr().Next()
	link, err := a.ns.links.LinkByName("eth0")
	check(t, err)
	check(t, a.ns.route(link.Attrs().Index, []netip.Addr{gateway}))
	a.misses("the world, by a route of its own", "tcp", l.outsider, 80)
	a.knowsNot("names of the world", "world.test.", dns.TypeA)
	if n := asked.Load(); n != 0 {
		t.Errorf("%d queries left the internal network (CVE-2024-29018)", n)
	}
	if _, err := l.Publish(t.Context(), "b", []Port{{Proto: "tcp", ContainerPort: 80}}); err == nil {
		t.Error("a port of an internal network was published")
	}
}

func TestNetworksAreApart(t *testing.T) {
	l := newLab(t)
	l.create(Network{Name: "one"})
	l.create(Network{Name: "two"})
	l.create(Network{Name: "shy", Isolated: true})
	a := l.named("a", "one", "a")
	b := l.named("b", "two", "b")
	b.serve("b", 80)
	a.misses("another network", "tcp", b.ip, 80)
	c := l.named("c", "shy", "c")
	d := l.named("d", "shy", "d")
	d.serve("d", 80)
	c.misses("a neighbour of an isolated network", "tcp", d.ip, 80)
	// A published port is a door that anybody may use, by the host's address.
	_, err := l.Publish(t.Context(), "b", []Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8080}})
	check(t, err)
	a.reaches("published by another network", "tcp", l.hostIP, 8080, "b")

	// A container may be in both.
	ep, err := l.Join(t.Context(), "a", "two", EndpointOptions{Aliases: []string{"a"}})
	check(t, err)
	if ep.IfName != "eth1" {
		t.Errorf("the second interface is %s, want eth1", ep.IfName)
	}
	a.reaches("in both", "tcp", b.ip, 80, "b")
	a.finds("in both", "b.", dns.TypeA, b.ip.String())
}

func TestPortsAndTheRouteFollowWhatIsLeft(t *testing.T) {
	l := newLab(t)
	l.create(Network{Name: "one"})
	l.create(Network{Name: "two"})
	l.world().serve("world", 80)
	a := l.named("a", "one", "a")
	a.serve("a", 80)
	_, err := l.Publish(t.Context(), "a", []Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8080}})
	check(t, err)
	_, err = l.Join(t.Context(), "a", "two", EndpointOptions{})
	check(t, err)
	l.world().reaches("by the first network", "tcp", l.hostIP, 8080, "a")
	check(t, l.Leave(t.Context(), "a", "one"))
	l.world().reaches("by the second network", "tcp", l.hostIP, 8080, "a")
	a.reaches("the world by the second network", "tcp", l.outsider, 80, "world")
	check(t, l.Leave(t.Context(), "a", "two"))
	l.world().misses("in no network", "tcp", l.hostIP, 8080)
}

func TestIPv6(t *testing.T) {
	l := newLab(t)
	w := l.create(Network{Name: "six", IPv6: true})
	if len(w.Subnets) != 2 || !w.Subnets[1].Prefix.Addr().Is6() {
		t.Fatalf("subnets %v, want one of each family", w.Subnets)
	}
	a := l.named("a", "six", "a")
	b := l.named("b", "six", "b")
	b.serve("b", 80)
	eps, err := l.Endpoints("six")
	check(t, err)
	six := eps[1].Addrs[1].Addr()
	a.reaches("by IPv6", "tcp", six, 80, "b")
	a.finds("IPv6 by name", "b.", dns.TypeAAAA, six.String())
	a.finds("the name of an IPv6 address", arpa(t, six), dns.TypePTR, "b.six.")
	got, err := l.Publish(t.Context(), "b", []Port{
		{Proto: "tcp", ContainerPort: 80, HostPort: 8080, HostIP: netip.IPv6Unspecified()},
		{Proto: "udp", ContainerPort: 80, HostPort: 8080, HostIP: netip.IPv6Unspecified()},
	})
	check(t, err)
	gateway := w.Subnets[1].Gateway
	for _, p := range got {
		l.host().reaches("published on IPv6, from the host", p.Proto, gateway, 8080, "b")
		a.reaches("published on IPv6, from a neighbour", p.Proto, gateway, 8080, "b")
	}
	l.host().misses("published on IPv6 alone", "tcp", l.hostIP, 8080)
}

func TestANetworkIsRemovedWhole(t *testing.T) {
	l := newLab(t)
	w := l.create(Network{Name: "net", Labels: map[string]string{"k": "v"}})
	for _, c := range []struct {
		name string
		w    Network
	}{
		{"a name that is taken", Network{Name: "net"}},
		{"a subnet that is taken", Network{Name: "over", Subnets: []Subnet{{Prefix: w.Subnets[0].Prefix}}}},
		{"host bits", Network{Name: "bits", Subnets: []Subnet{{Prefix: netip.MustParsePrefix("10.9.8.7/24")}}}},
		{"a driver that is not there", Network{Name: "driver", Driver: "carrier-pigeon"}},
	} {
		if _, err := l.Create(t.Context(), c.w); err == nil {
			t.Errorf("%s: a network was made", c.name)
		}
	}
	l.named("a", "net", "a")
	if err := l.Remove(t.Context(), "net"); err == nil || !strings.Contains(err.Error(), "has active endpoints") {
		t.Errorf("remove a network that is used: %v", err)
	}
	check(t, l.Release(t.Context(), "a"))
	l.crash()
	l.open()
	got, err := l.Network(w.ID[:12])
	check(t, err)
	if got.Labels["k"] != "v" || got.Subnets[0].Prefix != w.Subnets[0].Prefix {
		t.Errorf("after a restart the network is %+v, was %+v", got, w)
	}
	check(t, l.Remove(t.Context(), "net"))
	if _, err := l.links.LinkByName(w.Device); !gone(err) {
		t.Errorf("device %s after the removal: %v", w.Device, err)
	}
	if err := l.Remove(t.Context(), Default); err == nil {
		t.Error("the default network was removed")
	}
	if list := fmt.Sprint(names(l.List())); list != "[bridge host none]" {
		t.Errorf("networks: %s", list)
	}
}

func names(all []Network) (s []string) {
	for _, w := range all {
		s = append(s, w.Name)
	}
	return s
}
