package option

import (
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// attachment is one --network: a name, or fields of comma-separated values.
type attachment struct {
	name       string
	aliases    []string
	ip, ip6    string
	mac        string
	linkLocal  []string
	driverOpts map[string]string
	priority   int
}

func (c *Container) addNetwork(s string) error {
	a, err := parseAttachment(s)
	if err != nil {
		return err
	}
	c.networks = append(c.networks, a)
	return nil
}

func parseAttachment(s string) (attachment, error) {
	if !strings.Contains(s, "=") {
		return attachment{name: s}, nil
	}
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return attachment{}, err
	}
	var a attachment
	for _, field := range fields {
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		if !ok || value == "" {
			return a, fmt.Errorf("invalid field %s", field)
		}
		switch strings.ToLower(key) {
		case "name":
			a.name = value
		case "alias":
			a.aliases = append(a.aliases, value)
		case "ip":
			a.ip = value
		case "ip6":
			a.ip6 = value
		case "mac-address":
			a.mac = value
		case "link-local-ip":
			a.linkLocal = append(a.linkLocal, value)
		case "driver-opt":
			k, v, ok := strings.Cut(value, "=")
			if !ok {
				return a, fmt.Errorf("invalid key value pair format in driver options")
			}
			if a.driverOpts == nil {
				a.driverOpts = map[string]string{}
			}
			a.driverOpts[k] = v
		case "gw-priority":
			if a.priority, err = strconv.Atoi(value); err != nil {
				return a, fmt.Errorf("invalid gw-priority (%s): %w", value, err)
			}
		default:
			return a, fmt.Errorf("invalid field key %s", key)
		}
	}
	if a.name == "" {
		return a, errors.New("network name/id is not specified")
	}
	return a, nil
}

// networkMode is the first network; "default" where none was asked for.
func (c *Container) networkMode() string {
	if len(c.networks) == 0 {
		return network.NetworkDefault
	}
	return c.networks[0].name
}

// endpoints are the networks that the container joins. Options that name no
// network (--ip, --network-alias, …) belong to the first.
func (c *Container) endpoints() (map[string]*network.EndpointSettings, error) {
	nets := c.networks
	if len(nets) == 0 {
		nets = []attachment{{name: network.NetworkDefault}}
	}
	out := map[string]*network.EndpointSettings{}
	for i, a := range nets {
		if i == 0 {
			if err := c.firstNetwork(&a); err != nil {
				return nil, err
			}
		}
		if _, twice := out[a.name]; twice {
			return nil, fmt.Errorf("network %q is specified multiple times", a.name)
		}
		ep, err := a.settings()
		if err != nil {
			return nil, err
		}
		mode := container.NetworkMode(a.name)
		switch {
		case mode.IsUserDefined() && i == 0:
			ep.Links = c.links
		case !mode.IsUserDefined() && len(a.aliases) > 0:
			return nil, errors.New("network-scoped aliases are only supported for user-defined networks")
		case mode.IsHost(), mode.IsNone(), mode.IsContainer():
			continue // no network at all: nothing to say of it
		}
		out[a.name] = ep
	}
	return out, nil
}

func (c *Container) firstNetwork(a *attachment) error {
	for _, both := range []struct {
		flag         string
		here, before bool
	}{
		{"--network-alias", len(c.aliases) > 0, len(a.aliases) > 0},
		{"--ip", c.ip != "", a.ip != ""},
		{"--ip6", c.ip6 != "", a.ip6 != ""},
		{"--mac-address", c.mac != "", a.mac != ""},
		{"--link-local-ip", len(c.linkLocal) > 0, len(a.linkLocal) > 0},
	} {
		if both.here && both.before {
			return fmt.Errorf("conflicting options: cannot specify both %s and per-network option", both.flag)
		}
	}
	a.aliases = append(a.aliases, c.aliases...)
	a.linkLocal = append(a.linkLocal, c.linkLocal...)
	a.ip, a.ip6, a.mac = a.ip+c.ip, a.ip6+c.ip6, a.mac+c.mac
	return nil
}

func (a attachment) settings() (*network.EndpointSettings, error) {
	ep := &network.EndpointSettings{Aliases: a.aliases, DriverOpts: a.driverOpts, GwPriority: a.priority}
	if a.mac != "" {
		hw, err := net.ParseMAC(a.mac)
		if err != nil {
			return nil, fmt.Errorf("%s is not a valid mac address", a.mac)
		}
		ep.MacAddress = network.HardwareAddr(hw)
	}
	if a.ip == "" && a.ip6 == "" && len(a.linkLocal) == 0 {
		return ep, nil
	}
	ep.IPAMConfig = &network.EndpointIPAMConfig{}
	for _, one := range []struct {
		text string
		to   *netip.Addr
	}{{a.ip, &ep.IPAMConfig.IPv4Address}, {a.ip6, &ep.IPAMConfig.IPv6Address}} {
		if one.text == "" {
			continue
		}
		addr, err := netip.ParseAddr(one.text)
		if err != nil {
			return nil, fmt.Errorf("invalid IP address: %s", one.text)
		}
		*one.to = addr
	}
	for _, s := range a.linkLocal {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid link-local IP address: %s", s)
		}
		ep.IPAMConfig.LinkLocalIPs = append(ep.IPAMConfig.LinkLocalIPs, addr)
	}
	return ep, nil
}

// Endpoint is how a container is connected to one network, for `network connect`.
type Endpoint struct {
	a          attachment
	links      []string
	driverOpts []string
}

// AddFlags adds the options.
func (e *Endpoint) AddFlags(f *pflag.FlagSet) {
	f.StringSliceVar(&e.a.aliases, "alias", nil, "Add network-scoped alias for the container")
	f.StringSliceVar(&e.driverOpts, "driver-opt", nil, "driver options for the network")
	f.IntVar(&e.a.priority, "gw-priority", 0, "Highest gw-priority provides the default gateway.\nAccepts positive and negative values.")
	f.StringVar(&e.a.ip, "ip", "", "IPv4 address (e.g., \"172.30.100.104\")")
	f.StringVar(&e.a.ip6, "ip6", "", "IPv6 address (e.g., \"2001:db8::33\")")
	f.Var(NewList(&e.links, nil), "link", "Add link to another container")
	f.StringSliceVar(&e.a.linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
}

// Settings makes the part of the request.
func (e *Endpoint) Settings() (*network.EndpointSettings, error) {
	for _, s := range e.driverOpts {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, errors.New("invalid key/value pair format in driver options")
		}
		if e.a.driverOpts == nil {
			e.a.driverOpts = map[string]string{}
		}
		e.a.driverOpts[k] = v
	}
	ep, err := e.a.settings()
	if err != nil {
		return nil, err
	}
	if ep.IPAMConfig == nil {
		ep.IPAMConfig = &network.EndpointIPAMConfig{}
	}
	ep.Links = e.links
	return ep, nil
}

// addGPUs reads one --gpus: "all", a count, or fields of comma-separated values.
func (c *Container) addGPUs(s string) error {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return err
	}
	var req container.DeviceRequest
	for _, field := range fields {
		key, value, has := strings.Cut(field, "=")
		if !has {
			key, value = "count", field
		}
		switch key {
		case "driver":
			req.Driver = value
		case "count":
			if req.Count, err = gpuCount(value); err != nil {
				return err
			}
		case "device":
			req.DeviceIDs = strings.Split(value, ",")
		case "capabilities":
			req.Capabilities = [][]string{append(strings.Split(value, ","), "gpu")}
		case "options":
			req.Options = Pairs(strings.Split(value, ","))
		default:
			return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	if req.Count == 0 && req.DeviceIDs == nil {
		req.Count = 1
	}
	if req.Options == nil {
		req.Options = map[string]string{}
	}
	if req.Capabilities == nil {
		req.Capabilities = [][]string{{"gpu"}}
	}
	c.resources.gpus = append(c.resources.gpus, req)
	return nil
}

func gpuCount(s string) (int, error) {
	if s == "all" {
		return -1, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf(`invalid count (%s): value must be either "all" or an integer`, s)
	}
	return n, nil
}
