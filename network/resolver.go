package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// resolver is the DNS server of one sandbox. It listens inside the sandbox at
// 127.0.0.11 on ports of the kernel's choice, to which nftables there translates
// port 53: so port 53 is free for a container that is a name server itself.
//
//	container ── 127.0.0.11:53 ──▶ names of its networks' endpoints
//	                               else, with a way out: cache, then the host's servers
type resolver struct {
	n       *Networks
	b       *box
	servers []*dns.Server
	stop    context.CancelFunc
	ctx     context.Context // ends with the resolver; handlers of miekg/dns are given none
	slots   chan struct{}   // bounds the queries that wait for other servers
}

// maxForwarded bounds what one container can make this process wait for.
const maxForwarded = 128

// serveNames starts b's resolver if it is in a user-defined network and has none.
// work is held.
func (n *Networks) serveNames(b *box, ns *namespace) error {
	if b.names != nil || len(b.namedNetworks()) == 0 {
		return nil
	}
	r := &resolver{n: n, b: b, slots: make(chan struct{}, maxForwarded)}
	r.ctx, r.stop = context.WithCancel(context.Background())
	if err := r.listen(ns); err != nil {
		return fmt.Errorf("serve names in sandbox %s: %w", b.ID, err)
	}
	b.names = r
	return nil
}

// namedNetworks are the networks in which the sandbox finds others by name: all
// but the default one.
func (b *box) namedNetworks() []string {
	var ids []string
	for _, ep := range b.Endpoints {
		if ep.Network != Default {
			ids = append(ids, ep.NetworkID)
		}
	}
	return ids
}

func (r *resolver) listen(ns *namespace) (err error) {
	var packets net.PacketConn
	var streams net.Listener
	err = ns.inside(func() (err error) {
		at := netip.AddrPortFrom(embedded, 0)
		if packets, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		defer errs.Undo(&err, packets.Close)
		streams, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return err
	}
	defer errs.Undo(&err, func() error { return errors.Join(packets.Close(), streams.Close()) })
	udp := packets.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	tcp := streams.Addr().(*net.TCPAddr).AddrPort().Port()
	if err := translateDNS(ns, udp, tcp); err != nil {
		return err
	}
	r.servers = []*dns.Server{{PacketConn: packets, Handler: r}, {Listener: streams, Handler: r}}
	for _, s := range r.servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			if err := s.ActivateAndServe(); err != nil && r.ctx.Err() == nil {
				r.n.log.Error("the name server of a sandbox ended", "sandbox", r.b.ID, "error", err)
			}
		}()
		<-started // Shutdown of a server that has not started does nothing
	}
	return nil
}

// close ends the servers and waits for the queries that they are answering.
func (r *resolver) close() {
	if r == nil {
		return
	}
	r.stop()
	for _, s := range r.servers {
		if err := s.Shutdown(); err != nil {
			r.n.log.Warn("the name server of a sandbox does not end", "sandbox", r.b.ID, "error", err)
		}
	}
}

// dnsTable is the name of the nftables table inside sandboxes.
const dnsTable = "gantry_dns"

// translateDNS makes 127.0.0.11:53 of the namespace lead to the two ports.
func translateDNS(ns *namespace, udp, tcp uint16) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns.fd))
	if err != nil {
		return fmt.Errorf("open nftables in the namespace: %w", err)
	}
	f := newFamily4(dnsTable)
	c.AddTable(f.table) // so that there is one to delete
	c.DelTable(f.table)
	c.AddTable(f.table)
	chain := f.base(c, "output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	for proto, to := range map[byte]uint16{unix.IPPROTO_UDP: udp, unix.IPPROTO_TCP: tcp} {
		f.rule(
			c, chain,
			f.prefix(f.dest, netip.PrefixFrom(embedded, 32)),
			[]expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
				&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{proto}},
				payload(expr.PayloadBaseTransportHeader, 2, 2, reg0),
				&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.BigEndian.PutUint16(53)},
				&expr.Immediate{Register: reg0, Data: embedded.AsSlice()},
				&expr.Immediate{Register: reg0 + 1, Data: binaryutil.BigEndian.PutUint16(to)},
				&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, RegProtoMin: reg0 + 1},
			},
		)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("translate port 53 in the namespace: %w", err)
	}
	return nil
}

// ServeDNS answers one query of the sandbox.
func (r *resolver) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	answer := r.answer(query, w.RemoteAddr().Network() == "tcp")
	if w.RemoteAddr().Network() != "tcp" {
		size := dns.MinMsgSize
		if o := query.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
		answer.Truncate(size)
	}
	// The client may be gone: nobody is left to be told.
	_ = w.WriteMsg(answer)
}

func (r *resolver) answer(query *dns.Msg, tcp bool) *dns.Msg {
	if query.Opcode != dns.OpcodeQuery || query.Response {
		return fail(query, dns.RcodeNotImplemented)
	}
	if len(query.Question) != 1 {
		return fail(query, dns.RcodeFormatError)
	}
	q := query.Question[0]
	if q.Qclass == dns.ClassINET {
		if a := r.local(query, q); a != nil {
			return a
		}
	}
	out, servers := r.upstream()
	if !out {
		// What is asked for here must not leave the internal network (CVE-2024-29018).
		return fail(query, dns.RcodeNameError)
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
		return r.n.forwarder.forward(r.ctx, query, servers, tcp)
	default:
		return fail(query, dns.RcodeServerFailure)
	}
}

// upstream says whether the sandbox has a way out, and the servers to ask.
func (r *resolver) upstream() (bool, []netip.Addr) {
	r.n.mu.Lock()
	defer r.n.mu.Unlock()
	return r.b.gateway() != nil, slices.Clone(r.b.DNS)
}

func fail(query *dns.Msg, code int) *dns.Msg {
	m := new(dns.Msg).SetRcode(query, code)
	m.RecursionAvailable = true
	return m
}
