package network

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// forwarder asks other servers, from the host's namespace, what no endpoint
// answers, and remembers for a short time what they said. All resolvers share it.
type forwarder struct {
	log *slog.Logger

	mu    sync.Mutex
	cache map[question]cached
}

// question is what an answer depends on.
type question struct {
	dns.Question
	dnssec, checking bool
	servers          string
}

type cached struct {
	answer *dns.Msg
	from   time.Time
	until  time.Time
}

// How long things take and how much is kept.
const (
	forwardTimeout = 5 * time.Second        // of one query
	headStart      = 150 * time.Millisecond // of a server over the next one
	maxCached      = 1000                   // answers
	maxCachedFor   = 60 * time.Second
	upstreamSize   = 1232 // bytes of a UDP answer that no path fragments (DNS Flag Day 2020)
)

func newForwarder(log *slog.Logger) *forwarder {
	return &forwarder{log: log, cache: map[question]cached{}}
}

// forward answers query from the cache or by the servers, the host's if there are
// none.
func (f *forwarder) forward(ctx context.Context, query *dns.Msg, servers []netip.Addr, tcp bool) *dns.Msg {
	if len(servers) == 0 {
		host, err := hostResolv()
		if err != nil {
			f.log.Warn("the host's name servers cannot be read", "error", err)
		}
		if servers = host.servers; len(servers) == 0 {
			servers = publicServers()
		}
	}
	key := questionOf(query, servers)
	if a := f.remembered(key, query); a != nil {
		return a
	}
	ctx, cancel := context.WithTimeout(ctx, forwardTimeout)
	defer cancel()
	answer, err := race(ctx, query, servers, tcp)
	if err != nil {
		f.log.Debug("no name server answers", "name", key.Name, "error", err)
		return fail(query, dns.RcodeServerFailure)
	}
	f.remember(key, answer)
	return respond(query, answer)
}

func questionOf(query *dns.Msg, servers []netip.Addr) question {
	key := question{Question: query.Question[0], checking: query.CheckingDisabled, servers: fmt.Sprint(servers)}
	key.Name = strings.ToLower(key.Name)
	if o := query.IsEdns0(); o != nil {
		key.dnssec = o.Do()
	}
	return key
}

// race asks one server after the other without waiting for those before to give
// up, and takes the first good answer, or the last bad one.
func race(ctx context.Context, query *dns.Msg, servers []netip.Addr, tcp bool) (*dns.Msg, error) {
	type result struct {
		answer *dns.Msg
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make(chan result, len(servers)) // so that losers end too
	var last result
	asked, answered := 0, 0
	ask := func() {
		server := servers[asked]
		asked++
		go func() {
			a, err := exchange(ctx, query, server, tcp)
			results <- result{a, err}
		}()
	}
	for ask(); answered < len(servers); {
		next := time.After(headStart)
		if asked == len(servers) {
			next = nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-next:
			ask()
		case r := <-results:
			answered++
			if r.err == nil && (r.answer.Rcode == dns.RcodeSuccess || r.answer.Rcode == dns.RcodeNameError) {
				return r.answer, nil
			}
			if last.answer == nil {
				last = r
			}
			if asked < len(servers) {
				ask()
			}
		}
	}
	return last.answer, last.err
}

// exchange asks one server, over TCP if tcp says so or if its answer does not fit
// a packet.
func exchange(ctx context.Context, query *dns.Msg, server netip.Addr, tcp bool) (*dns.Msg, error) {
	q := query.Copy()
	q.Id = dns.Id()
	q.RecursionDesired = true
	if o := q.IsEdns0(); o != nil {
		o.SetUDPSize(upstreamSize)
	} else {
		q.SetEdns0(upstreamSize, false)
	}
	to := net.JoinHostPort(server.String(), "53")
	if !tcp {
		c := dns.Client{Net: "udp", UDPSize: upstreamSize, Timeout: forwardTimeout}
		a, _, err := c.ExchangeContext(ctx, q, to)
		if err != nil {
			return nil, fmt.Errorf("ask %s: %w", to, err)
		}
		if !a.Truncated {
			return a, answersTo(q, a)
		}
	}
	c := dns.Client{Net: "tcp", Timeout: forwardTimeout}
	a, _, err := c.ExchangeContext(ctx, q, to)
	if err != nil {
		return nil, fmt.Errorf("ask %s over TCP: %w", to, err)
	}
	return a, answersTo(q, a)
}

// answersTo refuses an answer to another question.
func answersTo(q, a *dns.Msg) error {
	if !a.Response || len(a.Question) != 1 || a.Question[0].Qtype != q.Question[0].Qtype ||
		!strings.EqualFold(a.Question[0].Name, q.Question[0].Name) {
		return fmt.Errorf("answer is not to the question %s", q.Question[0].Name)
	}
	return nil
}

// respond makes what a server said the answer to query, which may have no EDNS.
func respond(query, answer *dns.Msg) *dns.Msg {
	m := answer.Copy()
	m.Id, m.Question = query.Id, query.Question
	m.Response, m.RecursionDesired, m.RecursionAvailable = true, query.RecursionDesired, true
	m.Extra = slices.DeleteFunc(m.Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
	if o := query.IsEdns0(); o != nil {
		m.SetEdns0(upstreamSize, o.Do())
	}
	return m
}

func (f *forwarder) remembered(key question, query *dns.Msg) *dns.Msg {
	f.mu.Lock()
	hit, ok := f.cache[key]
	f.mu.Unlock()
	now := time.Now()
	if !ok || now.After(hit.until) {
		return nil
	}
	m := respond(query, hit.answer)
	age := uint32(now.Sub(hit.from).Seconds())
	for _, rr := range slices.Concat(m.Answer, m.Ns, m.Extra) {
		if h := rr.Header(); h.Rrtype != dns.TypeOPT {
			h.Ttl -= min(age, h.Ttl)
		}
	}
	return m
}

func (f *forwarder) remember(key question, answer *dns.Msg) {
	keep := lifetime(answer)
	if keep <= 0 {
		return
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for old, c := range f.cache {
		// A full cache drops what has ended, or any one.
		if len(f.cache) < maxCached {
			break
		}
		if delete(f.cache, old); now.Before(c.until) {
			break
		}
	}
	f.cache[key] = cached{answer: answer.Copy(), from: now, until: now.Add(keep)}
}

// lifetime is the shortest TTL of an answer; that there is none lives as long as
// the zone says (RFC 2308, section 5).
func lifetime(a *dns.Msg) time.Duration {
	if a.Rcode != dns.RcodeSuccess && a.Rcode != dns.RcodeNameError {
		return 0
	}
	rrs := a.Answer
	if a.Rcode == dns.RcodeNameError || len(rrs) == 0 {
		rrs = nil
		for _, rr := range a.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				soa.Hdr.Ttl = min(soa.Hdr.Ttl, soa.Minttl)
				rrs = append(rrs, soa)
			}
		}
	}
	if len(rrs) == 0 {
		return 0
	}
	keep := maxCachedFor
	for _, rr := range rrs {
		keep = min(keep, time.Duration(rr.Header().Ttl)*time.Second)
	}
	return keep
}
