package network

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"golang.org/x/sys/unix"
)

// family is the table of one address family.
type family struct {
	table    *nftables.Table
	v4       bool
	loopback netip.Prefix
	// Where an address lies in the IP header, and how many bytes it has.
	source, dest, size uint32

	bridges    *nftables.Set // interface names of our bridges
	within     *nftables.Set // pairs of the same bridge
	internal   *nftables.Set // bridges without a way out
	subnets    *nftables.Set // of our bridges
	masquerade *nftables.Set // of these, what goes out under the host's address
	portAt     *nftables.Set
	portAny    *nftables.Set
	rangeAt    *nftables.Set
	rangeAny   *nftables.Set
}

func newFamily4(name string) *family {
	return newFamily(&family{
		table: &nftables.Table{Name: name, Family: nftables.TableFamilyIPv4},
		v4:    true, loopback: netip.MustParsePrefix("127.0.0.0/8"),
		source: 12, dest: 16, size: 4, // RFC 791, section 3.1
	}, nftables.TypeIPAddr)
}

func newFamily6(name string) *family {
	return newFamily(&family{
		table:    &nftables.Table{Name: name, Family: nftables.TableFamilyIPv6},
		loopback: netip.MustParsePrefix("::1/128"),
		source:   8, dest: 24, size: 16, // RFC 8200, section 3
	}, nftables.TypeIP6Addr)
}

func newFamily(f *family, addr nftables.SetDatatype) *family {
	ifname := nftables.TypeIFName
	protoPort := []nftables.SetDatatype{nftables.TypeInetProto, nftables.TypeInetService}
	addrProtoPort := append([]nftables.SetDatatype{addr}, protoPort...)
	f.bridges = f.set("bridges", ifname)
	f.within = f.set("within", ifname, ifname)
	f.internal = f.set("internal", ifname)
	f.subnets = interval(f.set("subnets", addr))
	f.masquerade = interval(f.set("masquerade", addr))
	target := nftables.MustConcatSetType(addr, nftables.TypeInetService)
	f.portAt = mapTo(f.set("port_at", addrProtoPort...), target)
	f.portAny = mapTo(f.set("port_any", protoPort...), target)
	f.rangeAt = interval(mapTo(f.set("range_at", addrProtoPort...), addr))
	f.rangeAny = interval(mapTo(f.set("range_any", protoPort...), addr))
	return f
}

func (f *family) set(name string, key ...nftables.SetDatatype) *nftables.Set {
	s := &nftables.Set{Table: f.table, Name: name, KeyType: key[0], KeyByteOrder: binaryutil.BigEndian}
	if key[0] == nftables.TypeIFName {
		s.KeyByteOrder = binaryutil.NativeEndian // for nft, which would not show the names
	}
	if len(key) > 1 {
		s.KeyType, s.Concatenation = nftables.MustConcatSetType(key...), true
	}
	return s
}

func mapTo(s *nftables.Set, data nftables.SetDatatype) *nftables.Set {
	s.IsMap, s.DataType = true, data
	return s
}

func interval(s *nftables.Set) *nftables.Set {
	s.Interval = true
	return s
}

// add queues the whole table.
func (f *family) add(c *nftables.Conn, want ruleset, guard bool) error {
	c.AddTable(f.table)
	for _, s := range []*nftables.Set{
		f.bridges, f.within, f.internal, f.subnets, f.masquerade, f.portAt, f.portAny, f.rangeAt, f.rangeAny,
	} {
		s.ID = 0 // a new one for each transaction
		if err := c.AddSet(s, nil); err != nil {
			return err
		}
	}
	f.addChains(c, guard)
	for _, br := range want.bridges {
		if err := f.addBridge(c, br); err != nil {
			return err
		}
	}
	return f.change(c, want.ports, (*nftables.Conn).SetAddElements)
}

func (f *family) addBridge(c *nftables.Conn, br *bridge) error {
	name := ifname(br.Device)
	elems := map[*nftables.Set][]nftables.SetElement{
		f.bridges: {{Key: name}},
		f.within:  {{Key: append(append([]byte{}, name...), name...)}},
	}
	if br.Internal {
		elems[f.internal] = []nftables.SetElement{{Key: name}}
	}
	for _, s := range br.Subnets {
		if s.Prefix.Addr().Is4() != f.v4 {
			continue
		}
		span := []nftables.SetElement{
			{Key: s.Prefix.Addr().AsSlice()},
			{Key: last(s.Prefix).Next().AsSlice(), IntervalEnd: true},
		}
		elems[f.subnets] = append(elems[f.subnets], span...)
		if !br.Internal && !br.NoMasquerade {
			elems[f.masquerade] = append(elems[f.masquerade], span...)
		}
	}
	for set, e := range elems {
		if err := c.SetAddElements(set, e); err != nil {
			return err
		}
	}
	return nil
}

// change queues the adding or deleting of published ports, in pieces: the length
// of a netlink attribute has 16 bits.
func (f *family) change(c *nftables.Conn, ports []element, do func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	const piece = 400
	queue := map[*nftables.Set][]nftables.SetElement{}
	for _, p := range ports {
		if p.to.Is4() != f.v4 {
			continue
		}
		set, e := f.element(p)
		queue[set] = append(queue[set], e)
	}
	for set, all := range queue {
		for len(all) > 0 {
			n := min(len(all), piece)
			if err := do(c, set, all[:n]); err != nil {
				return err
			}
			all = all[n:]
		}
	}
	return nil
}

// element gives the map that p belongs in, and what to put there.
func (f *family) element(p element) (*nftables.Set, nftables.SetElement) {
	at, any := f.portAt, f.portAny
	e := nftables.SetElement{
		Key: portKey(p.host, p.proto, p.port),
		Val: append(p.to.AsSlice(), port(p.toPort)...),
	}
	if p.ranged {
		at, any = f.rangeAt, f.rangeAny
		e.KeyEnd = portKey(p.host, p.proto, p.end)
		e.Val = p.to.AsSlice()
	}
	if p.host.IsUnspecified() {
		return any, e
	}
	return at, e
}

// portKey is a concatenation: each of its parts fills whole registers of 4 bytes.
func portKey(host netip.Addr, proto uint8, number uint16) []byte {
	var key []byte
	if !host.IsUnspecified() {
		key = host.AsSlice()
	}
	return append(append(key, proto, 0, 0, 0), port(number)...)
}

func port(number uint16) []byte {
	return append(binary.BigEndian.AppendUint16(nil, number), 0, 0)
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
