package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// Networks is all networks and sandboxes of one daemon. What it does, at one
// glance:
//
//	Open(ctx, Config) (*Networks, error)
//	Restore(ctx, live func(sandboxID string) bool) error
//	Close() error
//	Erase(ctx) error
//
//	Create(ctx, Network) (Network, error)
//	Network(ref) (Network, error)            ref: name, ID, or unambiguous prefix of an ID
//	List() []Network
//	Remove(ctx, ref) error
//	Endpoints(ref) ([]Endpoint, error)
//
//	NewSandbox(ctx, id, SandboxOptions) (Sandbox, error)
//	Sandbox(id) (Sandbox, error)
//	Join(ctx, id, ref, EndpointOptions) (Endpoint, error)
//	SetAliases(ctx, id, ref, []string) error
//	Leave(ctx, id, ref) error
//	Publish(ctx, id, []Port) ([]Port, error)
//	Stats(ctx, id) (map[string]Counters, error)
//	Release(ctx, id) error
type Networks struct {
	cfg       Config
	log       *slog.Logger
	veths     string          // how our veths' names begin
	links     *netlink.Handle // rtnetlink of the host
	rules     *rules
	pool      *pool // of namespaces with a veth pair
	bare      *pool // of those without, once one was needed
	reaper    *reaper
	forwarder *forwarder
	fixed     []Network // host, none
	networks  records[Network]
	sandboxes records[Sandbox]

	mu      sync.Mutex
	bridges map[string]*bridge // by ID
	boxes   map[string]*box    // by sandbox ID
	ports   ports
}

// Open reads the networks of cfg.Root and the sandboxes of cfg.State, makes or
// adopts the default bridge, and replaces the nftables tables by what the
// sandboxes need, in one transaction: traffic that flows goes on. Restore must
// follow before the first NewSandbox.
func Open(ctx context.Context, cfg Config) (_ *Networks, err error) {
	cfg = cfg.complete()
	n := &Networks{
		cfg: cfg, log: cfg.Log, veths: vethPrefix(cfg.Bridge),
		bridges: map[string]*bridge{}, boxes: map[string]*box{}, ports: ports{},
		networks:  records[Network]{dir: cfg.Root, durable: true},
		sandboxes: records[Sandbox]{dir: filepath.Join(cfg.State, "sandboxes")},
	}
	for _, dir := range []string{n.networks.dir, n.sandboxes.dir, n.netnsDir()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("open networks: %w", err)
		}
	}
	if n.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open networks: open rtnetlink: %w", err)
	}
	defer errs.Undo(&err, func() error { n.links.Close(); return nil })
	if n.rules, err = newRules(cfg.Bridge); err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	defer errs.Undo(&err, func() error { return n.rules.close() })
	if err := n.load(); err != nil {
		return nil, fmt.Errorf("open networks: %w", err)
	}
	n.forwarder = newForwarder(n.log)
	n.reaper = newReaper(n.log)
	n.pool = newPool(n, n.newPrepared, cfg.Pool)
	n.bare = newPool(n, n.newBare, cfg.Pool)
	return n, nil
}

func (c Config) complete() Config {
	if c.Bridge == "" {
		c.Bridge = "gantry0"
	}
	if c.Pool == 0 {
		c.Pool = 4
	}
	if !c.PublishAddress.IsValid() {
		c.PublishAddress = netip.IPv4Unspecified()
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c
}

func (n *Networks) netnsDir() string { return filepath.Join(n.cfg.State, "netns") }

// load reads the records, and brings the kernel to what they say.
func (n *Networks) load() error {
	bad := func(path string, err error) {
		n.log.Error("a record of the network cannot be read, it is left out", "path", path, "error", err)
	}
	networks, err := n.networks.all(bad)
	if err != nil {
		return err
	}
	for _, w := range networks {
		n.bridges[w.ID] = newBridge(w)
	}
	def, err := n.loadDefault()
	if err != nil {
		return fmt.Errorf("default network: %w", err)
	}
	n.fixed = fixedNetworks(n.cfg.Root, def.Created)
	if err := n.setUp(def); err != nil {
		return fmt.Errorf("default network: %w", err)
	}
	for _, br := range n.bridges {
		if br == def {
			continue
		}
		// One broken network does not keep the others from working.
		if err := n.setUp(br); err != nil {
			n.log.Error("a network cannot be set up", "network", br.Name, "error", err)
		}
	}
	sandboxes, err := n.sandboxes.all(bad)
	if err != nil {
		return err
	}
	for _, s := range sandboxes {
		n.boxes[s.ID] = n.adopt(s)
	}
	_, err = os.Stat(n.guardFile())
	n.rules.guard = err == nil
	n.warnOfForeignFirewall()
	return n.rules.replace(n.ruleset())
}

// adopt takes a sandbox of an earlier daemon over, with its leases and ports.
func (n *Networks) adopt(s Sandbox) *box {
	for _, ep := range s.Endpoints {
		if br := n.bridges[ep.NetworkID]; br != nil {
			for _, p := range ep.Addrs {
				if l := br.leasesOf(p.Addr()); l != nil {
					l.taken[p.Addr()] = true
				}
			}
		}
	}
	b := &box{Sandbox: s}
	b.elements = elements(s.Ports, b.wayOut())
	n.ports.add(s.ID, s.Ports)
	return b
}

// loadDefault finds the default network among the records or makes it; what the
// configuration says of it comes first.
func (n *Networks) loadDefault() (*bridge, error) {
	w := Network{ID: newID(), Name: Default, Driver: "bridge", Created: time.Now().UTC()}
	for id, br := range n.bridges {
		if br.Name == Default {
			w = br.Network
			delete(n.bridges, id)
		}
	}
	before := w
	w.Device = n.cfg.Bridge
	subnet, err := n.defaultSubnet(w)
	if err != nil {
		return nil, err
	}
	if len(w.Subnets) == 0 || w.Subnets[0].Prefix != subnet.Prefix || w.Subnets[0].Gateway != subnet.Gateway {
		w.Subnets = []Subnet{subnet}
	}
	if w.Device != before.Device || !slices.EqualFunc(w.Subnets, before.Subnets, func(a, b Subnet) bool { return a.Prefix == b.Prefix }) {
		if err := n.networks.write(w.ID, w); err != nil {
			return nil, err
		}
	}
	br := newBridge(w)
	n.bridges[w.ID] = br
	return br, nil
}

// defaultSubnet is, in this order: what the device has, what the configuration
// says, what it was before, 172.17.0.0/16, the first that is free.
func (n *Networks) defaultSubnet(w Network) (Subnet, error) {
	if p, ok := n.addressOf(w.Device); ok {
		return Subnet{Prefix: p.Masked(), Gateway: p.Addr()}.complete()
	}
	if n.cfg.Subnet != "" {
		p, err := netip.ParsePrefix(n.cfg.Subnet)
		if err != nil || !p.Addr().Is4() {
			return Subnet{}, fmt.Errorf("subnet %q is not an IPv4 prefix such as 172.17.0.0/16: %w", n.cfg.Subnet, errdefs.ErrInvalidArgument)
		}
		s := Subnet{Prefix: p.Masked()}
		if p != p.Masked() {
			s.Gateway = p.Addr() // "172.17.42.1/16" says the bridge's address too
		}
		return s.complete()
	}
	if len(w.Subnets) > 0 {
		return w.Subnets[0], nil
	}
	subnets, err := n.subnets(w)
	if err != nil {
		return Subnet{}, err
	}
	return subnets[0], nil
}

// addressOf gives the first IPv4 address of a device, if there are both.
func (n *Networks) addressOf(device string) (netip.Prefix, bool) {
	link, err := n.links.LinkByName(device)
	if err != nil {
		return netip.Prefix{}, false
	}
	addrs, err := dumped(func() ([]netlink.Addr, error) { return n.links.AddrList(link, unix.AF_INET) })
	if err != nil || len(addrs) == 0 {
		return netip.Prefix{}, false
	}
	a, _ := netip.AddrFromSlice(addrs[0].IP)
	ones, _ := addrs[0].Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones), true
}

// ruleset is what the tables must hold. n.mu is held, or nobody else has n yet.
func (n *Networks) ruleset() ruleset {
	var want ruleset
	for _, br := range n.bridges {
		want.bridges = append(want.bridges, br)
	}
	for _, b := range n.boxes {
		want.ports = append(want.ports, b.elements...)
	}
	return want
}

// Close waits for what Release left to be done, and lets go of the held ports
// and the prepared namespaces. Sandboxes, rules and bridges stay, for the next
// daemon.
func (n *Networks) Close() error {
	n.pool.close()
	n.bare.close()
	n.reaper.close()
	// Before the lock, which the queries that they are answering take.
	for _, r := range n.resolvers() {
		r.close()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, b := range n.boxes {
		b.letGo()
		if b.fresh != nil {
			b.fresh.close()
		}
	}
	n.links.Close()
	if err := n.rules.close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close networks: %w", err)
	}
	return nil
}

func (n *Networks) resolvers() []*resolver {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []*resolver
	for _, b := range n.boxes {
		all = append(all, b.names)
	}
	return all
}

// Erase releases every sandbox, takes away every device and table, and closes.
// The records of the networks stay in Root: the next Open makes them again.
func (n *Networks) Erase(ctx context.Context) error {
	n.mu.Lock()
	ids := slices.Collect(maps.Keys(n.boxes))
	n.mu.Unlock()
	var failed []error
	for _, id := range ids {
		failed = append(failed, n.Release(ctx, id))
	}
	n.pool.close()
	n.bare.close()
	n.reaper.close()
	for _, br := range n.bridges {
		failed = append(failed, n.tearDown(br))
	}
	failed = append(failed, n.turnOff(), n.rules.delete(), n.rules.close())
	n.links.Close()
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("erase networks: %w", err)
	}
	return nil
}
