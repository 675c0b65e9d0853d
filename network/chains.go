package network

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers of 4 bytes; the first 4 of them are the old register 1.
const (
	reg0      = unix.NFT_REG32_00
	word      = 4
	routeType = 2 // RTN_LOCAL of linux/rtnetlink.h, what fib calls "local"
)

// Keys of nft's meta expression that x/sys/unix does not name (linux/netfilter/nf_tables.h).
const (
	metaIIFKIND = 26
	metaOIFKIND = 27
)

// addChains queues the chains and their rules.
func (f *family) addChains(c *nftables.Conn, guard bool) {
	publish := c.AddChain(&nftables.Chain{Name: "publish", Table: f.table})
	f.addPublish(c, publish)
	f.addUnspoof(c)
	for _, chain := range []*nftables.Chain{
		f.base(c, "prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest),
		f.base(c, "output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest),
	} {
		f.rule(c, chain, toLocal(), verdict(expr.VerdictJump, publish.Name))
	}
	f.addForward(c, guard)
	f.addPostrouting(c)
}

// addUnspoof drops what claims, from outside, to be for the host's loopback: the
// bridges have route_localnet set, which would let it in (CVE-2020-8558). At raw
// priority, that is before the answers of containers get back an address of loopback.
func (f *family) addUnspoof(c *nftables.Conn) {
	chain := f.base(c, "unspoof", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	f.rule(c, chain, f.prefix(f.dest, f.loopback), notFromLoopback(), verdict(expr.VerdictDrop, ""))
}

// addPublish translates by four maps: single ports before ranges, those of one
// address of the host before those of every address.
func (f *family) addPublish(c *nftables.Conn, chain *nftables.Chain) {
	addrWords := f.size / word
	for _, m := range []struct {
		set    *nftables.Set
		at     bool
		ranged bool
	}{{f.portAt, true, false}, {f.portAny, false, false}, {f.rangeAt, true, true}, {f.rangeAny, false, true}} {
		var exprs []expr.Any
		reg := uint32(reg0)
		if m.at {
			exprs = append(exprs, payload(expr.PayloadBaseNetworkHeader, f.dest, f.size, reg))
			reg += addrWords
		}
		exprs = append(exprs,
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg},
			payload(expr.PayloadBaseTransportHeader, 2, 2, reg+1), // the destination port
			&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: m.set.Name, SetID: m.set.ID},
		)
		nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(f.table.Family), RegAddrMin: reg0}
		if !m.ranged {
			nat.RegProtoMin = reg0 + addrWords
		}
		f.rule(c, chain, exprs, []expr.Any{nat})
	}
}

func (f *family) addForward(c *nftables.Conn, guard bool) {
	chain := f.base(c, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	accept, drop := verdict(expr.VerdictAccept, ""), verdict(expr.VerdictDrop, "")
	f.rule(c, chain, ct(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)
	f.rule(c, chain, f.pair(), accept)
	f.rule(c, chain, f.in(expr.MetaKeyIIFNAME, f.internal, false), drop)
	f.rule(c, chain, f.in(expr.MetaKeyOIFNAME, f.internal, false), drop)
	f.rule(c, chain, f.in(expr.MetaKeyOIFNAME, f.bridges, false), published(), accept)
	f.rule(c, chain, f.in(expr.MetaKeyOIFNAME, f.bridges, false), drop)
	f.rule(c, chain, f.in(expr.MetaKeyIIFNAME, f.bridges, false), accept)
	if guard {
		f.addGuard(c, chain, accept, drop)
	}
}

// addGuard keeps a host that did not forward before from becoming a router
// between its network cards. What comes from or goes to a virtual device that
// exists to be routed to, somebody else has arranged.
func (f *family) addGuard(c *nftables.Conn, chain *nftables.Chain, accept, drop []expr.Any) {
	for _, kind := range []string{"bridge", "veth", "tun", "wireguard", "vxlan", "vrf", "ipip", "sit", "gre"} {
		for _, key := range []expr.MetaKey{metaIIFKIND, metaOIFKIND} {
			f.rule(c, chain, []expr.Any{
				&expr.Meta{Key: key, Register: reg0},
				&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: ifname(kind)},
			}, accept)
		}
	}
	f.rule(c, chain, drop)
}

func (f *family) addPostrouting(c *nftables.Conn) {
	chain := f.base(c, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)
	masquerade := []expr.Any{&expr.Masq{}}
	f.rule(c, chain, f.inPrefixes(f.masquerade), f.in(expr.MetaKeyOIFNAME, f.bridges, true), masquerade)
	for _, from := range [][]expr.Any{f.inPrefixes(f.subnets), f.prefix(f.source, f.loopback)} {
		f.rule(c, chain, from, f.in(expr.MetaKeyOIFNAME, f.bridges, false), published(), masquerade)
	}
}

func (f *family) base(c *nftables.Conn, name string, kind nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority) *nftables.Chain {
	return c.AddChain(&nftables.Chain{Name: name, Table: f.table, Type: kind, Hooknum: hook, Priority: prio})
}

func (f *family) rule(c *nftables.Conn, chain *nftables.Chain, parts ...[]expr.Any) {
	var exprs []expr.Any
	for _, p := range parts {
		exprs = append(exprs, p...)
	}
	c.AddRule(&nftables.Rule{Table: f.table, Chain: chain, Exprs: exprs})
}

// in matches an interface name that is, or is not, in a set.
func (f *family) in(key expr.MetaKey, set *nftables.Set, not bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: reg0},
		&expr.Lookup{SourceRegister: reg0, SetName: set.Name, SetID: set.ID, Invert: not},
	}
}

// pair matches what stays on one bridge.
func (f *family) pair() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg0},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg0 + unix.IFNAMSIZ/word},
		&expr.Lookup{SourceRegister: reg0, SetName: f.within.Name, SetID: f.within.ID},
	}
}

// inPrefixes matches a source address in a set of prefixes.
func (f *family) inPrefixes(set *nftables.Set) []expr.Any {
	return []expr.Any{
		payload(expr.PayloadBaseNetworkHeader, f.source, f.size, reg0),
		&expr.Lookup{SourceRegister: reg0, SetName: set.Name, SetID: set.ID},
	}
}

// prefix matches an address at offset of the IP header.
func (f *family) prefix(offset uint32, p netip.Prefix) []expr.Any {
	return []expr.Any{
		payload(expr.PayloadBaseNetworkHeader, offset, f.size, reg0),
		&expr.Bitwise{
			SourceRegister: reg0, DestRegister: reg0, Len: f.size,
			Mask: mask(p.Bits(), int(f.size)), Xor: make([]byte, f.size),
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: p.Masked().Addr().AsSlice()},
	}
}

// toLocal matches a destination that is an address of the host.
func toLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, FlagDADDR: true, ResultADDRTYPE: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(routeType)},
	}
}

func notFromLoopback() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg0},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: ifname("lo")},
	}
}

// published matches connections whose destination was translated (IPS_DST_NAT of
// linux/netfilter/nf_conntrack_common.h).
func published() []expr.Any { return ct(expr.CtKeySTATUS, 1<<5) }

// ct matches a connection that has one of the bits.
func ct(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg0},
		&expr.Bitwise{
			SourceRegister: reg0, DestRegister: reg0, Len: word,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, word),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, word)},
	}
}

func payload(base expr.PayloadBase, offset, size, reg uint32) expr.Any {
	return &expr.Payload{OperationType: expr.PayloadLoad, Base: base, Offset: offset, Len: size, DestRegister: reg}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func mask(bits, size int) []byte {
	b := make([]byte, size)
	for i := range bits {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}
