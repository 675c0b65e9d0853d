package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	eventsapi "github.com/moby/moby/api/types/events"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/network"
)

// check validates a wish at create. Unknown networks are no error before the start.
func (n *networks) check(w netWish) error {
	if _, err := portWishes(w); err != nil {
		return err
	}
	for name, ep := range w.Endpoints {
		user := !predefined(name)
		if len(w.Endpoints) > 1 && (name == network.Host || name == network.None) {
			return invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
		}
		if len(ep.Links) > 0 && !user {
			return invalid("legacy links are not supported: join the containers to one network")
		}
		if _, err := links(ep.Links); err != nil {
			return err
		}
		if !user && len(ep.Aliases) > 0 {
			return invalid("network-scoped alias is supported only for containers in user defined networks")
		}
		if c := ep.IPAMConfig; c != nil && (c.IPv4Address.IsValid() || c.IPv6Address.IsValid()) {
			switch {
			case !user:
				return invalid("user specified IP address is supported on user defined networks only")
			case c.IPv4Address.IsValid() && !c.IPv4Address.Is4():
				return invalid("invalid IPv4 address: %s", c.IPv4Address)
			case c.IPv6Address.IsValid() && !c.IPv6Address.Is6():
				return invalid("invalid IPv6 address: %s", c.IPv6Address)
			}
		}
	}
	return nil
}

// portWishes are the ports to publish, in a stable order: by the container's port.
func portWishes(w netWish) ([]network.Port, error) {
	var ports []network.Port
	for port, bindings := range w.PortBindings {
		if port.Num() == 0 {
			return nil, invalid("invalid port specification: %q", port)
		}
		if len(bindings) == 0 {
			bindings = []dockernet.PortBinding{{}}
		}
		for _, b := range bindings {
			p := network.Port{Proto: string(port.Proto()), ContainerPort: port.Num(), HostIP: b.HostIP}
			if b.HostPort != "" {
				hosts, err := dockernet.ParsePortRange(b.HostPort)
				if err != nil || strings.Contains(b.HostPort, "/") {
					return nil, invalid("invalid port specification: %q", b.HostPort)
				}
				p.HostPort = hosts.Start()
				if hosts.End() > hosts.Start() {
					p.HostPortEnd = hosts.End()
				}
			}
			ports = append(ports, p)
		}
	}
	if w.PublishAll {
		for port := range w.Exposed {
			if _, bound := w.PortBindings[port]; !bound {
				ports = append(ports, network.Port{Proto: string(port.Proto()), ContainerPort: port.Num()})
			}
		}
	}
	slices.SortFunc(ports, func(a, b network.Port) int {
		if c := strings.Compare(a.Proto, b.Proto); c != 0 {
			return c
		}
		if a.ContainerPort != b.ContainerPort {
			return int(a.ContainerPort) - int(b.ContainerPort)
		}
		return int(a.HostPort) - int(b.HostPort)
	})
	return ports, nil
}

// up makes the sandbox of a container: a namespace joined to what it wishes, or
// none in the host's network. It leaves nothing behind when it fails.
func (n *networks) up(ctx context.Context, w netWish) (sb netSandbox, err error) {
	if w.Mode.IsHost() {
		return n.hostSandbox(w)
	}
	order := joinOrder(w.Endpoints)
	nets := make([]network.Network, len(order))
	for i, name := range order {
		if nets[i], err = n.find(name); err != nil {
			return netSandbox{}, err
		}
	}
	first := network.None
	if len(nets) > 0 {
		first = nets[0].ID
	}
	box, err := n.store.NewSandbox(ctx, w.ID, network.SandboxOptions{Network: first, DNS: w.DNS})
	if err != nil {
		return netSandbox{}, err
	}
	defer errs.Undo(&err, func() error { return n.store.Release(context.WithoutCancel(ctx), w.ID) })
	sb = netSandbox{ID: w.ID, Path: box.Path, Endpoints: map[string]*dockernet.EndpointSettings{}}
	for i, name := range order {
		if sb.Endpoints[name], err = n.join(ctx, w.ID, w.Name, w.Hostname, nets[i], w.Endpoints[name]); err != nil {
			return netSandbox{}, err
		}
	}
	if sb.Ports, err = n.publish(ctx, w); err != nil {
		return netSandbox{}, err
	}
	etc, err := n.files(w, sb.Endpoints)
	if err != nil {
		return netSandbox{}, err
	}
	sb.Hosts, sb.Resolv = etc.Hosts, etc.Resolv
	for _, one := range nets {
		n.tell(eventsapi.ActionConnect, one, w.ID)
	}
	return sb, nil
}

// joinOrder puts the network that has the default route first: that of the
// highest priority, then by name.
func joinOrder(eps map[string]*dockernet.EndpointSettings) []string {
	var names []string
	for name := range eps {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := eps[b].GwPriority - eps[a].GwPriority; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return names
}

// join gives the sandbox of the container an interface in one network.
func (n *networks) join(ctx context.Context, id, name, hostname string, one network.Network, wish *dockernet.EndpointSettings) (_ *dockernet.EndpointSettings, err error) {
	ep := endpointIn(id, name, hostname, one, wish)
	if one.Name == network.None {
		return ep, nil
	}
	o := network.EndpointOptions{MAC: net.HardwareAddr(ep.MacAddress)}
	if c := ep.IPAMConfig; c != nil {
		for _, a := range []netip.Addr{c.IPv4Address, c.IPv6Address} {
			if a.IsValid() {
				o.Addrs = append(o.Addrs, a)
			}
		}
	}
	if !predefined(one.Name) {
		o.Aliases = ep.DNSNames
		if o.Links, err = links(ep.Links); err != nil {
			return nil, err
		}
	}
	got, err := n.store.Join(ctx, id, one.ID, o)
	if errdefs.IsAlreadyExists(err) && len(o.Addrs) > 0 {
		return nil, because(errdefs.ErrPermissionDenied, "Address already in use: %w", err)
	}
	if err != nil {
		return nil, err
	}
	fillEndpoint(ep, got)
	return ep, nil
}

// endpointIn is what is known of an endpoint before the network gives anything.
func endpointIn(id, name, hostname string, one network.Network, wish *dockernet.EndpointSettings) *dockernet.EndpointSettings {
	ep := wish.Copy()
	ep.NetworkID = one.ID
	switch {
	case one.Name == network.None:
		ep.EndpointID = endpointID(id, one.ID)
	case !predefined(one.Name):
		ep.DNSNames = dnsNames(id, name, hostname, ep.Aliases)
	}
	return ep
}

// dnsNames are the names of a container in a user-defined network; the first
// answers reverse lookups.
func dnsNames(id, name, hostname string, aliases []string) []string {
	var names []string
	for _, one := range slices.Concat([]string{name}, aliases, []string{id[:12], hostname}) {
		if one != "" && !slices.Contains(names, one) {
			names = append(names, one)
		}
	}
	return names
}

// links reads links of an endpoint, each NAME or NAME:ALIAS, by their aliases.
func links(wished []string) (map[string]string, error) {
	byAlias := map[string]string{}
	for _, link := range wished {
		name, alias, ok := strings.Cut(link, ":")
		if !ok {
			alias = name
		}
		name = strings.TrimPrefix(name, "/")
		if name == "" || alias == "" || strings.Contains(alias, ":") {
			return nil, invalid("bad format for links: %s", link)
		}
		byAlias[strings.TrimPrefix(alias, "/")] = name
	}
	return byAlias, nil
}

// fillEndpoint writes what the network gave.
func fillEndpoint(ep *dockernet.EndpointSettings, got network.Endpoint) {
	ep.EndpointID, ep.MacAddress = got.ID, dockernet.HardwareAddr(got.MAC)
	for _, a := range got.Addrs {
		if a.Addr().Is4() {
			ep.IPAddress, ep.IPPrefixLen = a.Addr(), a.Bits()
		} else {
			ep.GlobalIPv6Address, ep.GlobalIPv6PrefixLen = a.Addr(), a.Bits()
		}
	}
	for _, g := range got.Gateways {
		if g.Is4() {
			ep.Gateway = g
		} else {
			ep.IPv6Gateway = g
		}
	}
}

// endpointID is that of an endpoint which is nothing but a word in the API.
func endpointID(container, network string) string {
	sum := sha256.Sum256([]byte(container + network))
	return hex.EncodeToString(sum[:])
}

// publish opens the wished ports, and says which became of them.
func (n *networks) publish(ctx context.Context, w netWish) (dockernet.PortMap, error) {
	ports, err := portWishes(w)
	if err != nil || len(ports) == 0 || w.Mode.IsNone() {
		return nil, err
	}
	got, err := n.store.Publish(ctx, w.ID, ports)
	if errdefs.IsFailedPrecondition(err) {
		return nil, nil // an internal network has no way in; Docker says nothing either
	}
	if err != nil {
		// Stock answers 500 here, whatever the cause.
		return nil, fmt.Errorf("driver failed programming external connectivity on endpoint %s: %s", w.Name, plainText(err))
	}
	return portMap(got), nil
}

func portMap(ports []network.Port) dockernet.PortMap {
	m := dockernet.PortMap{}
	for _, p := range ports {
		port, _ := dockernet.PortFrom(p.ContainerPort, dockernet.IPProtocol(p.Proto))
		m[port] = append(m[port], dockernet.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort))})
	}
	return m
}

// path is where the network namespace of a container is, or will be.
func (n *networks) path(id string) string { return n.store.SandboxPath(id) }

// given is the sandbox of a container that runs, as up gave it, but for the files.
func (n *networks) given(w netWish) (netSandbox, error) {
	box, err := n.store.Sandbox(w.ID)
	if err != nil {
		return netSandbox{}, err
	}
	sb := netSandbox{ID: w.ID, Path: box.Path, Endpoints: map[string]*dockernet.EndpointSettings{}}
	for name, wish := range w.Endpoints {
		one, err := n.find(name)
		if err != nil {
			return netSandbox{}, err
		}
		ep := endpointIn(w.ID, w.Name, w.Hostname, one, wish)
		for _, got := range box.Endpoints {
			if got.NetworkID == one.ID {
				fillEndpoint(ep, got)
			}
		}
		sb.Endpoints[name] = ep
	}
	if len(box.Ports) > 0 {
		sb.Ports = portMap(box.Ports)
	}
	return sb, nil
}

// etcFiles is what a container reads of its network.
type etcFiles struct{ Hosts, Resolv []byte }

// files makes the files of /etc for a container with these endpoints.
func (n *networks) files(w netWish, eps map[string]*dockernet.EndpointSettings) (f etcFiles, err error) {
	hosts := network.HostsOptions{Hostname: w.Hostname, Domainname: w.Domainname, Extra: w.ExtraHosts, Gateway: n.hostGateway()}
	resolv := network.ResolvOptions{
		HostNetwork: w.Mode.IsHost(), Servers: w.DNS, Search: w.DNSSearch, Options: w.DNSOptions,
	}
	for _, name := range joinOrder(eps) {
		for _, a := range []netip.Addr{eps[name].IPAddress, eps[name].GlobalIPv6Address} {
			if a.IsValid() {
				hosts.Addrs = append(hosts.Addrs, a)
			}
		}
		resolv.Embedded = resolv.Embedded || !predefined(name)
	}
	if f.Hosts, err = network.Hosts(hosts); err != nil {
		return etcFiles{}, err
	}
	f.Resolv, err = network.Resolv(resolv)
	return f, err
}

// hostGateway is what "host-gateway" stands for: the host's address on the
// default bridge.
func (n *networks) hostGateway() netip.Addr {
	def, err := n.store.Network(network.Default)
	if err != nil || len(def.Subnets) == 0 {
		return netip.Addr{}
	}
	return def.Subnets[0].Gateway
}

// hostSandbox is for a container in the host's network.
func (n *networks) hostSandbox(w netWish) (sb netSandbox, err error) {
	host, err := n.find(network.Host)
	if err != nil {
		return netSandbox{}, err
	}
	sb.Endpoints = map[string]*dockernet.EndpointSettings{}
	for name, wish := range w.Endpoints {
		ep := wish.Copy()
		ep.NetworkID, ep.EndpointID = host.ID, endpointID(w.ID, host.ID)
		sb.Endpoints[name] = ep
	}
	etc, err := n.files(w, sb.Endpoints)
	if err != nil {
		return netSandbox{}, err
	}
	sb.Hosts, sb.Resolv = etc.Hosts, etc.Resolv
	n.tell(eventsapi.ActionConnect, host, w.ID)
	return sb, nil
}

// down takes the sandbox of a container apart. No sandbox is no error.
func (n *networks) down(ctx context.Context, id string) error {
	box, err := n.store.Sandbox(id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := n.store.Release(ctx, id); err != nil {
		return err
	}
	for _, ep := range box.Endpoints {
		if one, err := n.store.Network(ep.NetworkID); err == nil {
			n.tell(eventsapi.ActionDisconnect, one, id)
		}
	}
	return nil
}

// restore keeps the sandboxes of the containers that run, and takes all others
// apart.
func (n *networks) restore(ctx context.Context, live map[string]netWish) error {
	return n.store.Restore(ctx, func(id string) bool {
		_, runs := live[id]
		return runs
	})
}

// renamed makes a container that runs known by its new name in its networks.
func (n *networks) renamed(ctx context.Context, id, name, hostname string, eps map[string]*dockernet.EndpointSettings) error {
	for _, ep := range eps {
		one, err := n.store.Network(ep.NetworkID)
		if err != nil || predefined(one.Name) {
			continue
		}
		ep.DNSNames = dnsNames(id, name, hostname, ep.Aliases)
		if err := n.store.SetAliases(ctx, id, one.ID, ep.DNSNames); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("rename in network %s: %w", one.Name, err)
		}
	}
	return nil
}
