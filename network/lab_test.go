package network

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// lab is a host with a wire to a machine outside, which knows no way back to the
// containers' addresses.
type lab struct {
	*Networks
	t        *testing.T
	cfg      Config
	outside  *namespace
	hostIP   netip.Addr // of the host on the wire to the outside
	outsider netip.Addr
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir := t.TempDir()
	l := &lab{
		t: t, hostIP: netip.MustParseAddr("203.0.113.1"), outsider: netip.MustParseAddr("203.0.113.2"),
		cfg: Config{Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Log: slog.New(slog.NewTextHandler(t.Output(), nil))},
	}
	l.outside = wireOutside(t, l.hostIP, l.outsider)
	l.open()
	t.Cleanup(func() {
		check(t, l.Erase(t.Context()))
		if left, _ := os.ReadDir(l.netnsDir()); len(left) > 0 {
			t.Errorf("files left in %s: %v", l.netnsDir(), left)
		}
		if left, _ := os.ReadDir(l.sandboxes.dir); len(left) > 0 {
			t.Errorf("files left in %s: %v", l.sandboxes.dir, left)
		}
	})
	return l
}

func (l *lab) open(live ...string) {
	l.t.Helper()
	var err error
	l.Networks, err = Open(context.Background(), l.cfg)
	check(l.t, err)
	check(l.t, l.Restore(context.Background(), func(id string) bool { return slices.Contains(live, id) }))
}

// crash forgets the daemon as kill -9 would: nothing is written, nothing undone;
// the kernel closes its sockets and namespaces.
func (l *lab) crash() {
	l.Networks.pool.quitAndDrop()
	l.Networks.bare.quitAndDrop()
	l.Networks.reaper.close()
	for _, b := range l.boxes {
		b.letGo()
		b.names.close()
		if b.fresh != nil {
			b.fresh.close()
		}
	}
	l.links.Close()
	l.rules.close()
}

func (p *pool) quitAndDrop() {
	close(p.quit)
	p.done.Wait()
	for _, one := range p.ready {
		one.close()
	}
}

// wireOutside makes the machine outside.
func wireOutside(t *testing.T, host, outsider netip.Addr) *namespace {
	t.Helper()
	ns, err := newNamespace()
	check(t, err)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "wan0"
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: "wan", PeerNamespace: netlink.NsFd(ns.fd)}
	check(t, netlink.LinkAdd(veth))
	t.Cleanup(func() {
		check(t, netlink.LinkDel(veth))
		ns.close()
	})
	check(t, netlink.AddrAdd(veth, addr(netip.PrefixFrom(host, 24))))
	check(t, netlink.LinkSetUp(veth))
	peer, err := ns.links.LinkByName("wan")
	check(t, err)
	check(t, ns.links.AddrAdd(peer, addr(netip.PrefixFrom(outsider, 24))))
	check(t, ns.links.LinkSetUp(peer))
	return ns
}

// machine is a namespace in which a test opens sockets: a sandbox, the outside,
// or, if ns is nil, the host.
type machine struct {
	t  *testing.T
	ns *namespace
	ip netip.Addr
}

// start makes a sandbox in a network.
func (l *lab) start(id, network string, o EndpointOptions) machine {
	l.t.Helper()
	s, err := l.NewSandbox(l.t.Context(), id, SandboxOptions{Network: network})
	check(l.t, err)
	ep, err := l.Join(l.t.Context(), id, network, o)
	check(l.t, err)
	return l.at(s.Path, ep.Addrs[0].Addr())
}

func (l *lab) at(path string, ip netip.Addr) machine {
	l.t.Helper()
	ns, err := openNamespace(path)
	check(l.t, err)
	l.t.Cleanup(ns.close)
	return machine{l.t, ns, ip}
}

func (l *lab) host() machine  { return machine{l.t, nil, l.hostIP} }
func (l *lab) world() machine { return machine{l.t, l.outside, l.outsider} }

func (m machine) inside(f func() error) error {
	if m.ns == nil {
		return f()
	}
	return m.ns.inside(f)
}

// serve answers every TCP connection and UDP packet on the port with name and the
// address of the client.
func (m machine) serve(name string, port uint16) {
	m.t.Helper()
	check(m.t, m.inside(func() error {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		m.t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr().(*net.TCPAddr).IP)
				c.Close()
			}
		}()
		u, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		m.t.Cleanup(func() { u.Close() })
		go func() {
			for b := make([]byte, 100); ; {
				_, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				u.WriteTo(fmt.Appendf(nil, "%s %s\n", name, from.(*net.UDPAddr).IP), from)
			}
		}()
		return nil
	}))
}

// ask gives what a server answers: its name and the client's address as it sees it.
func (m machine) ask(proto string, to netip.Addr, port uint16, wait time.Duration) (name string, from netip.Addr, err error) {
	err = m.inside(func() error {
		c, err := net.DialTimeout(proto, netip.AddrPortFrom(to, port).String(), wait)
		if err != nil {
			return err
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(wait))
		if proto == "udp" {
			fmt.Fprintln(c, "hello")
		}
		line, err := bufio.NewReader(c).ReadString('\n')
		if err != nil && (err != io.EOF || line == "") {
			return err
		}
		words := strings.Fields(line)
		name, from = words[0], netip.MustParseAddr(words[1])
		return nil
	})
	return name, from, err
}

// A test waits for what should not come as long as silence, and for what must come
// as long as patience: the machine may be busy.
const (
	silence  = 300 * time.Millisecond
	patience = 30 * time.Second
)

// reaches fails the test unless the server of that name answers.
func (m machine) reaches(what, proto string, to netip.Addr, port uint16, want string) (from netip.Addr) {
	m.t.Helper()
	var name string
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); { // a packet may be lost, as packets are
		if name, from, err = m.ask(proto, to, port, time.Second); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err != nil || name != want {
		m.t.Errorf("%s: %s to %s:%d is answered by %q, %v; want %q", what, proto, to, port, name, err, want)
	}
	return from
}

func (m machine) misses(what, proto string, to netip.Addr, port uint16) {
	m.t.Helper()
	if name, _, err := m.ask(proto, to, port, silence); err == nil {
		m.t.Errorf("%s: %s to %s:%d is answered by %s, want silence", what, proto, to, port, name)
	}
}

// ping sends one ICMP echo request and waits for the answer.
func (m machine) ping(to netip.Addr) error {
	return m.inside(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		tv := unix.NsecToTimeval(patience.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return err
		}
		echo := []byte{8, 0, 0, 0, 0, 0, 0, 1}
		if err := unix.Sendto(fd, echo, 0, &unix.SockaddrInet4{Addr: to.As4()}); err != nil {
			return err
		}
		_, _, err = unix.Recvfrom(fd, make([]byte, 100), 0)
		return err
	})
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
