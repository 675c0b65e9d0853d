package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// rules are the nftables tables of this daemon, one for each address family,
// both named after the default bridge. Their rules never change: bridges,
// subnets and published ports are elements of sets and maps.
//
//	prerouting   raw     drop 127.0.0.0/8 that comes from a wire (CVE-2020-8558)
//	prerouting   dstnat  to an address of the host → publish
//	output       dstnat  to an address of the host → publish
//	publish              dnat by @port_at, @port_any, @range_at, @range_any
//	forward      filter  established; @within one bridge; not @internal;
//	                     into @bridges only what was published; out of @bridges
//	postrouting  srcnat  masquerade what leaves @bridges from @masquerade, and what
//	                     enters them by a published port from the host's loopback
//	                     or from a container, which must answer by way of the host
type rules struct {
	mu       sync.Mutex
	conn     *nftables.Conn
	families []*family
	// guard says that forwarding was off before this daemon put it on, so that the
	// host must not become a router for its other interfaces.
	guard bool
}

// ruleset is everything that the sets hold.
type ruleset struct {
	bridges []*bridge
	ports   []element
}

func newRules(name string) (*rules, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		// One transaction is one message: room for tens of thousands of ports.
		return errors.Join(c.SetWriteBuffer(8<<20), c.SetReadBuffer(1<<20))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &rules{conn: conn, families: []*family{newFamily4(name), newFamily6(name)}}, nil
}

func (r *rules) close() error { return r.conn.CloseLasting() }

// replace makes the tables anew, in one transaction: no packet meets a half of it.
func (r *rules) replace(want ruleset) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		// Adding first makes deleting safe when there is none yet.
		r.conn.AddTable(f.table)
		r.conn.DelTable(f.table)
		if err := f.add(r.conn, want, r.guard); err != nil {
			return fmt.Errorf("make nftables table %s: %w", f.table.Name, err)
		}
	}
	if err := r.conn.Flush(); err != nil {
		return fmt.Errorf("make nftables tables: %w", err)
	}
	return nil
}

// delete takes the tables away.
func (r *rules) delete() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		r.conn.AddTable(f.table)
		r.conn.DelTable(f.table)
	}
	return r.conn.Flush()
}

// open adds elements for published ports. If the tables are not there any more
// (somebody flushed the host's rules) the error is fs.ErrNotExist.
func (r *rules) open(ports []element) error {
	return r.change(ports, (*nftables.Conn).SetAddElements)
}

// shut takes them away again.
func (r *rules) shut(ports []element) error {
	return r.change(ports, (*nftables.Conn).SetDeleteElements)
}

func (r *rules) change(ports []element, do func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	if len(ports) == 0 {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.families {
		if err := f.change(r.conn, ports, do); err != nil {
			return err
		}
	}
	err := r.conn.Flush()
	if errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("change published ports: %w", os.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("change published ports: %w", err)
	}
	return nil
}

// element is one published port, or a range of them that keep their numbers.
type element struct {
	proto  uint8
	host   netip.Addr // unspecified: every address of its family
	port   uint16
	end    uint16 // port, if it is one
	to     netip.Addr
	toPort uint16 // of port
	ranged bool   // ports keep their numbers
}

// elements turns published ports of the container at addrs into elements.
// Consecutive ports that keep their number become one range.
func elements(ports []Port, addrs []netip.Prefix) []element {
	ports = slices.Clone(ports)
	slices.SortFunc(ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Proto, b.Proto), a.HostIP.Compare(b.HostIP), cmp.Compare(a.HostPort, b.HostPort))
	})
	var all []element
	for _, p := range ports {
		to, ok := sameFamily(addrs, p.HostIP)
		if !ok {
			continue
		}
		e := element{
			proto: protocols[p.Proto], host: p.HostIP, port: p.HostPort, end: p.HostPort,
			to: to, toPort: p.ContainerPort,
		}
		if n := len(all); n > 0 && all[n-1].extends(e) {
			all[n-1].end, all[n-1].ranged = e.end, true
			continue
		}
		all = append(all, e)
	}
	return all
}

// extends says that next is the port after e, and that neither is translated.
func (e element) extends(next element) bool {
	return e.proto == next.proto && e.host == next.host && e.to == next.to && e.port == e.toPort &&
		next.port == next.toPort && e.end+1 == next.port
}

// sameFamily finds the container's address that host can be translated to.
func sameFamily(addrs []netip.Prefix, host netip.Addr) (netip.Addr, bool) {
	for _, p := range addrs {
		if p.Addr().Is4() == host.Is4() {
			return p.Addr(), true
		}
	}
	return netip.Addr{}, false
}
