package network

import (
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

var loopback = netip.MustParseAddr("127.0.0.1")

func TestTwoSandboxesReachEachOtherAndTheWorld(t *testing.T) {
	l := newLab(t)
	a := l.start("a", Default, EndpointOptions{})
	b := l.start("b", Default, EndpointOptions{})
	b.serve("b", 80)
	l.world().serve("world", 80)
	check(t, a.ping(b.ip))
	check(t, a.ping(l.hostIP))
	check(t, a.ping(l.outsider))
	a.reaches("a to b", "tcp", b.ip, 80, "b")
	a.reaches("a to b", "udp", b.ip, 80, "b")
	l.host().reaches("host to b", "tcp", b.ip, 80, "b")
	if from := a.reaches("a to the world", "tcp", l.outsider, 80, "world"); from != l.hostIP {
		t.Errorf("the world sees %s, want the host's address %s", from, l.hostIP)
	}
	a.reaches("a to the world", "udp", l.outsider, 80, "world")
}

// A queue that nothing uses takes 4 kB of the kernel's memory, and a machine may
// have hundreds of processors.
func TestAVethPairHasOneQueueHoweverManyProcessors(t *testing.T) {
	l := newLab(t)
	box := l.start("a", Default, EndpointOptions{})
	outer, err := l.links.LinkList()
	check(t, err)
	inner, err := box.ns.links.LinkByName("eth0")
	check(t, err)
	ends := slices.DeleteFunc(outer, func(link netlink.Link) bool { return !strings.HasPrefix(link.Attrs().Name, l.veths) })
	if len(ends) == 0 {
		t.Fatalf("no link begins with %s", l.veths)
	}
	for _, link := range append(ends, inner) {
		if a := link.Attrs(); a.NumTxQueues != 1 || a.NumRxQueues != 1 {
			t.Errorf("%s has %d queues to send and %d to receive, want 1", a.Name, a.NumTxQueues, a.NumRxQueues)
		}
	}
}

func TestPublishedPortsAreReachedFromEverywhere(t *testing.T) {
	l := newLab(t)
	a := l.start("a", Default, EndpointOptions{})
	b := l.start("b", Default, EndpointOptions{})
	b.serve("b", 80)
	b.serve("b81", 81)
	got, err := l.Publish(t.Context(), "b", []Port{
		{Proto: "tcp", ContainerPort: 80, HostPort: 8080},
		{Proto: "udp", ContainerPort: 80, HostPort: 8080},
		{Proto: "tcp", ContainerPort: 81},
	})
	check(t, err)
	if got[2].HostPort == 0 {
		t.Errorf("an ephemeral port was not chosen: %v", got)
	}
	for _, proto := range []string{"tcp", "udp"} {
		l.world().reaches("from outside", proto, l.hostIP, 8080, "b")
		l.host().reaches("from the host by its address", proto, l.hostIP, 8080, "b")
		l.host().reaches("from the host by loopback", proto, loopback, 8080, "b")
		a.reaches("from another container", proto, l.hostIP, 8080, "b")
		b.reaches("from the container itself", proto, l.hostIP, 8080, "b")
	}
	l.world().reaches("ephemeral, from outside", "tcp", l.hostIP, got[2].HostPort, "b81")
	if from := l.world().reaches("from outside", "tcp", l.hostIP, 8080, "b"); from != l.outsider {
		t.Errorf("the container sees %s, want the client's address %s", from, l.outsider)
	}
	check(t, l.Release(t.Context(), "b"))
	l.world().misses("after release", "tcp", l.hostIP, 8080)
	l.host().misses("after release", "tcp", loopback, 8080)
}

func TestConsecutivePortsAreOneRange(t *testing.T) {
	l := newLab(t)
	b := l.start("b", Default, EndpointOptions{})
	var ports []Port
	for i := range uint16(1000) {
		ports = append(ports, Port{Proto: "tcp", ContainerPort: 20000 + i, HostPort: 20000 + i})
	}
	ports = append(ports, Port{Proto: "udp", ContainerPort: 7000, HostPort: 9000}, Port{Proto: "udp", ContainerPort: 7001, HostPort: 9001})
	_, err := l.Publish(t.Context(), "b", ports)
	check(t, err)
	if got := len(l.boxes["b"].elements); got != 3 {
		t.Errorf("%d elements, want 1 for the range and 2 for the translated ports", got)
	}
	b.serve("first", 20000)
	b.serve("last", 20999)
	b.serve("translated", 7001)
	l.world().reaches("first of the range", "tcp", l.hostIP, 20000, "first")
	l.world().reaches("last of the range", "tcp", l.hostIP, 20999, "last")
	l.host().reaches("last of the range", "tcp", loopback, 20999, "last")
	l.world().misses("the other protocol", "udp", l.hostIP, 20999)
	l.world().reaches("translated", "udp", l.hostIP, 9001, "translated")
}

func TestAPortIsBoundToItsHostAddress(t *testing.T) {
	l := newLab(t)
	a := l.start("a", Default, EndpointOptions{})
	b := l.start("b", Default, EndpointOptions{})
	b.serve("b", 80)
	_, err := l.Publish(t.Context(), "b", []Port{
		{Proto: "tcp", ContainerPort: 80, HostPort: 8080, HostIP: loopback},
		{Proto: "tcp", ContainerPort: 80, HostPort: 8081, HostIP: l.hostIP},
	})
	check(t, err)
	l.host().reaches("loopback from the host", "tcp", loopback, 8080, "b")
	l.world().misses("loopback's from outside", "tcp", l.hostIP, 8080)
	a.misses("loopback's from a container", "tcp", l.hostIP, 8080)
	l.world().reaches("the address", "tcp", l.hostIP, 8081, "b")
	l.host().misses("the address's by loopback", "tcp", loopback, 8081)
}

func TestNobodyOutsideReachesWhatIsNotPublished(t *testing.T) {
	l := newLab(t)
	b := l.start("b", Default, EndpointOptions{})
	b.serve("b", 80)
	b.serve("b81", 81)
	_, err := l.Publish(t.Context(), "b", []Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8080, HostIP: loopback}})
	check(t, err)
	// A neighbour that routes the containers' subnet, or loopback, by the host.
	for _, p := range []string{"172.17.0.0/16", "127.0.0.0/8"} {
		dst := netip.MustParsePrefix(p)
		check(t, l.outside.inside(func() error { return sysctl("net/ipv4/conf/wan/route_localnet", "1") }))
		link, err := l.outside.links.LinkByName("wan")
		check(t, err)
		check(t, l.outside.links.LinkSetUp(byIndex(loopbackIndex)))
		if dst.Addr().IsLoopback() {
			// Its own loopback must not swallow the packets.
			check(t, l.outside.links.LinkSetDown(byIndex(loopbackIndex)))
		}
		check(t, l.outside.links.RouteReplace(&netlink.Route{
			LinkIndex: link.Attrs().Index, Gw: l.hostIP.AsSlice(),
			Dst: &net.IPNet{IP: dst.Addr().AsSlice(), Mask: net.CIDRMask(dst.Bits(), 32)},
		}))
	}
	l.world().misses("routed to the container", "tcp", b.ip, 80)
	l.world().misses("routed to the container", "tcp", b.ip, 81)
	l.world().misses("routed to loopback (CVE-2020-8558)", "tcp", loopback, 8080)
	// A container that does the same.
	check(t, b.ns.inside(func() error { return sysctl("net/ipv4/conf/eth0/route_localnet", "1") }))
	check(t, b.ns.links.LinkSetDown(byIndex(loopbackIndex)))
	l.host().serve("host", 9999)
	link, err := b.ns.links.LinkByName("eth0")
	check(t, err)
	check(t, b.ns.links.RouteReplace(&netlink.Route{
		LinkIndex: link.Attrs().Index, Gw: net.IPv4(172, 17, 0, 1), Dst: &net.IPNet{IP: net.IPv4(127, 0, 0, 0), Mask: net.CIDRMask(8, 32)},
	}))
	b.misses("a container to the host's loopback", "tcp", loopback, 9999)
}

func TestPortsThatAreTakenAreRefused(t *testing.T) {
	l := newLab(t)
	l.start("a", Default, EndpointOptions{})
	l.start("b", Default, EndpointOptions{})
	l.host().serve("host", 5000)
	_, err := l.Publish(t.Context(), "a", []Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8080}})
	check(t, err)
	for _, c := range []struct {
		name string
		port Port
		want string
	}{
		{"by another sandbox", Port{Proto: "tcp", ContainerPort: 80, HostPort: 8080}, "Bind for 0.0.0.0:8080 failed: port is already allocated"},
		{"by another sandbox at every address", Port{Proto: "tcp", ContainerPort: 80, HostPort: 8080, HostIP: loopback}, "Bind for 127.0.0.1:8080 failed: port is already allocated"},
		{"by a program of the host", Port{Proto: "tcp", ContainerPort: 80, HostPort: 5000}, "0.0.0.0:5000/tcp: address already in use"},
		{"by a program of the host, UDP", Port{Proto: "udp", ContainerPort: 80, HostPort: 5000}, "0.0.0.0:5000/udp: address already in use"},
	} {
		// The good port before the bad one is not kept.
		_, err := l.Publish(t.Context(), "b", []Port{{Proto: "tcp", ContainerPort: 81, HostPort: 8181}, c.port})
		if !errdefs.IsAlreadyExists(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("taken %s: %v, want %q", c.name, err, c.want)
		}
	}
	for _, p := range []Port{
		{Proto: "icmp", ContainerPort: 80},
		{Proto: "tcp"},
		{Proto: "tcp", ContainerPort: 1, HostPort: 9, HostPortEnd: 8},
		{Proto: "tcp", ContainerPort: 1, HostIP: netip.MustParseAddr("192.0.2.9")},
	} {
		if _, err := l.Publish(t.Context(), "b", []Port{p}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("publish %+v: %v, want an invalid argument", p, err)
		}
	}
	got, err := l.Publish(t.Context(), "b", []Port{
		{Proto: "tcp", ContainerPort: 81, HostPort: 8181},
		{Proto: "tcp", ContainerPort: 80, HostPort: 8080, HostPortEnd: 8085},
	})
	check(t, err)
	if got[1].HostPort != 8081 {
		t.Errorf("the first free port of 8080-8085 is %d, want 8081", got[1].HostPort)
	}
	if _, err := net.Listen("tcp", ":8081"); err == nil {
		t.Error("a program of the host took a published port")
	}
}

func TestADaemonThatWasKilledLosesNothing(t *testing.T) {
	l := newLab(t)
	a := l.start("a", Default, EndpointOptions{})
	b := l.start("b", Default, EndpointOptions{})
	l.start("dead", Default, EndpointOptions{})
	_, err := l.NewSandbox(t.Context(), "half", SandboxOptions{Network: Default})
	check(t, err)
	b.serve("b", 80)
	_, err = l.Publish(t.Context(), "b", []Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8080}})
	check(t, err)
	_, err = l.Publish(t.Context(), "dead", []Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8081}})
	check(t, err)
	// What a daemon leaves that dies in the middle of things.
	stray, err := newNamespace()
	check(t, err)
	_, err = l.newWire(stray, "eth0")
	check(t, err)
	check(t, stray.pin(filepath.Join(l.netnsDir(), "stray")))
	defer stray.close()
	before, err := l.Sandbox("b")
	check(t, err)

	l.crash()
	l.world().reaches("while no daemon runs", "tcp", l.hostIP, 8080, "b")
	l.open("a", "b")

	l.world().reaches("after restart", "tcp", l.hostIP, 8080, "b")
	l.host().reaches("after restart, by loopback", "tcp", loopback, 8080, "b")
	a.reaches("after restart", "tcp", b.ip, 80, "b")
	after, err := l.Sandbox("b")
	check(t, err)
	if !reflect.DeepEqual(before, after) {
		t.Errorf("the sandbox was\n%+v, is\n%+v", before, after)
	}
	if _, err := net.Listen("tcp", ":8080"); err == nil {
		t.Error("the published port is not held after restart")
	}
	if c, err := net.Listen("tcp", ":8081"); err != nil {
		t.Errorf("the dead sandbox's port is not free: %v", err)
	} else {
		c.Close()
	}
	for _, id := range []string{"dead", "half"} {
		if _, err := l.Sandbox(id); !errdefs.IsNotFound(err) {
			t.Errorf("sandbox %s: %v, want not found", id, err)
		}
	}
	entries, err := os.ReadDir(l.netnsDir())
	check(t, err)
	if len(entries) != 2 {
		t.Errorf("pinned after restart: %v, want a and b", entries)
	}
	c := l.start("c", Default, EndpointOptions{})
	if c.ip == a.ip || c.ip == b.ip {
		t.Errorf("the address %s was given twice", c.ip)
	}
	l.reaper.flush()
	links, err := l.links.LinkList()
	check(t, err)
	var names []string
	for _, k := range links {
		if l.isOurs(k.Attrs().Name) && k.Attrs().MasterIndex != 0 {
			names = append(names, k.Attrs().Name)
		}
	}
	if len(names) != 3 {
		t.Errorf("links on the bridge after restart: %v, want 3", names)
	}
}

// flush waits until what was added so far is gone.
func (r *reaper) flush() {
	done := make(chan struct{})
	r.add(debris{after: func() { close(done) }})
	<-done
}

func TestRulesThatSomebodyFlushedAreMadeAnew(t *testing.T) {
	l := newLab(t)
	for _, id := range []string{"a", "b", "c"} {
		l.start(id, Default, EndpointOptions{}).serve(id, 80)
	}
	publish := func(id string, port uint16) {
		_, err := l.Publish(t.Context(), id, []Port{{Proto: "tcp", ContainerPort: 80, HostPort: port}})
		check(t, err)
	}
	publish("a", 8080)
	publish("b", 8081)
	check(t, l.rules.delete())
	publish("c", 8082)
	l.world().reaches("published before", "tcp", l.hostIP, 8080, "a")
	l.world().reaches("published after", "tcp", l.hostIP, 8082, "c")
	check(t, l.rules.delete())
	check(t, l.Release(t.Context(), "b"))
	l.world().reaches("after a release", "tcp", l.hostIP, 8080, "a")
	l.world().misses("released", "tcp", l.hostIP, 8081)
}

func TestTwoHundredStartsAtEightATime(t *testing.T) {
	l := newLab(t)
	var group sync.WaitGroup
	ids := make(chan string)
	for range 8 {
		group.Go(func() {
			for id := range ids {
				if _, err := l.NewSandbox(t.Context(), id, SandboxOptions{Network: Default}); err != nil {
					t.Error(err)
				} else if _, err := l.Join(t.Context(), id, Default, EndpointOptions{}); err != nil {
					t.Error(err)
				} else if _, err := l.Publish(t.Context(), id, []Port{{Proto: "tcp", ContainerPort: 80}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	begin := time.Now()
	for i := range 200 {
		ids <- fmt.Sprintf("box%d", i)
	}
	close(ids)
	group.Wait()
	t.Logf("200 sandboxes joined and published in %s", time.Since(begin))
	eps, err := l.Endpoints(Default)
	check(t, err)
	seen := map[netip.Prefix]bool{}
	for _, ep := range eps {
		seen[ep.Addrs[0]] = true
	}
	if len(eps) != 200 || len(seen) != 200 {
		t.Errorf("%d endpoints with %d addresses, want 200", len(eps), len(seen))
	}
	begin = time.Now()
	for i := range 200 {
		check(t, l.Release(t.Context(), fmt.Sprintf("box%d", i)))
	}
	t.Logf("released in %s", time.Since(begin))
	l.reaper.flush()
	t.Logf("gone after %s", time.Since(begin))
	if c := l.start("again", Default, EndpointOptions{}); c.ip != netip.MustParseAddr("172.17.0.2") {
		t.Errorf("the first address after all were released is %s, want 172.17.0.2", c.ip)
	}
}

// A firewall of the host is not opened and not passed by in silence.
func TestTheHostsFirewallIsToldOf(t *testing.T) {
	for _, c := range []struct {
		name    string
		hook    *nftables.ChainHook
		publish netip.Addr
		want    string
	}{
		{"forward drops", nftables.ChainHookForward, netip.Addr{}, "drops forwarded packets"},
		{"input drops", nftables.ChainHookInput, netip.Addr{}, "published ports do not pass"},
		{"input drops, and loopback is the default", nftables.ChainHookInput, loopback, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := &nftables.Conn{}
			drop := nftables.ChainPolicyDrop
			table := conn.AddTable(&nftables.Table{Name: "theirs", Family: nftables.TableFamilyIPv4})
			conn.AddChain(&nftables.Chain{
				Name: "guard", Table: table, Type: nftables.ChainTypeFilter, Hooknum: c.hook,
				Priority: nftables.ChainPriorityFilter, Policy: &drop,
			})
			check(t, conn.Flush())
			defer func() {
				conn.DelTable(table)
				check(t, conn.Flush())
			}()
			var log bytes.Buffer
			dir := t.TempDir()
			n, err := Open(t.Context(), Config{
				Root: filepath.Join(dir, "r"), State: filepath.Join(dir, "s"), Pool: -1, PublishAddress: c.publish,
				Log: slog.New(slog.NewTextHandler(&log, nil)),
			})
			check(t, err)
			defer func() { check(t, n.Erase(t.Context())) }()
			if got := log.String(); (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
				t.Errorf("the log says %q, want %q", got, c.want)
			}
		})
	}
}
