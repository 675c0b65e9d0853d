package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/format"
	"github.com/gantryd/gantry/cli/internal/option"
)

// networkWish is the body of POST /networks/create.
type networkWish struct {
	Name       string
	Driver     string
	Scope      string
	EnableIPv4 *bool `json:",omitempty"`
	EnableIPv6 *bool `json:",omitempty"`
	IPAM       *network.IPAM
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigOnly bool
	ConfigFrom *network.ConfigReference
	Options    map[string]string
	Labels     map[string]string
	// CheckDuplicate asks engines before API 1.44 to refuse a name in use.
	CheckDuplicate bool `json:",omitempty"`
}

type networkCreation struct {
	wish              networkWish
	labels            []string
	configFrom        string
	ipv4, ipv6        bool
	ipamDriver        string
	ipamOptions       map[string]string
	subnets, gateways []string
	ranges            []string
	aux               map[string]string
}

func networkCreateCommand(c *cli) *cobra.Command {
	n := networkCreation{wish: networkWish{Options: map[string]string{}}, ipamOptions: map[string]string{}, aux: map[string]string{}}
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Create a network",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			n.wish.Name = args[0]
			if cmd.Flags().Changed("ipv4") {
				n.wish.EnableIPv4 = &n.ipv4
			}
			if cmd.Flags().Changed("ipv6") {
				n.wish.EnableIPv6 = &n.ipv6
			}
			return c.createNetwork(cmd.Context(), &n)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&n.wish.Attachable, "attachable", false, "Enable manual container attachment")
	f.Var(option.NewMap(&n.aux, nil), "aux-address", "Auxiliary IPv4 or IPv6 addresses used by Network driver")
	f.StringVar(&n.configFrom, "config-from", "", "The network from which to copy the configuration")
	f.BoolVar(&n.wish.ConfigOnly, "config-only", false, "Create a configuration only network")
	f.StringVarP(&n.wish.Driver, "driver", "d", "bridge", "Driver to manage the Network")
	f.StringSliceVar(&n.gateways, "gateway", nil, "IPv4 or IPv6 Gateway for the master subnet")
	f.BoolVar(&n.wish.Ingress, "ingress", false, "Create swarm routing-mesh network")
	f.BoolVar(&n.wish.Internal, "internal", false, "Restrict external access to the network")
	f.StringSliceVar(&n.ranges, "ip-range", nil, "Allocate container ip from a sub-range")
	f.StringVar(&n.ipamDriver, "ipam-driver", "default", "IP Address Management Driver")
	f.Var(option.NewMap(&n.ipamOptions, nil), "ipam-opt", "Set IPAM driver specific options")
	f.BoolVar(&n.ipv4, "ipv4", true, "Enable or disable IPv4 address assignment")
	f.BoolVar(&n.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	f.Var(newList(&n.labels, option.CheckLabel), "label", "Set metadata on a network")
	f.VarP(option.NewMap(&n.wish.Options, nil), "opt", "o", "Set driver specific options")
	f.StringVar(&n.wish.Scope, "scope", "", "Control the network's scope")
	f.StringSliceVar(&n.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	return cmd
}

func (c *cli) createNetwork(ctx context.Context, n *networkCreation) error {
	pools, err := addressPools(n.subnets, n.ranges, n.gateways, n.aux)
	if err != nil {
		return err
	}
	n.wish.Labels = option.Pairs(n.labels)
	n.wish.IPAM = &network.IPAM{Driver: n.ipamDriver, Options: n.ipamOptions, Config: pools}
	if n.configFrom != "" {
		n.wish.ConfigFrom = &network.ConfigReference{Network: n.configFrom}
	}
	cl, err := c.engine()
	if err != nil {
		return err
	}
	v, err := cl.Version(ctx)
	if err != nil {
		return err
	}
	n.wish.CheckDuplicate = client.Less(v, "1.44")
	var made network.CreateResponse
	if err := cl.Post(ctx, "/networks/create", nil, &n.wish, &made); err != nil {
		return err
	}
	fmt.Fprintln(c.std.Out, made.ID)
	return nil
}

// addressPools gives every subnet its range, gateway and reserved addresses:
// those that lie in it.
func addressPools(subnets, ranges, gateways []string, aux map[string]string) ([]network.IPAMConfig, error) {
	if len(subnets) < len(ranges) || len(subnets) < len(gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	pools := make([]network.IPAMConfig, 0, len(subnets))
	for _, s := range subnets {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid subnet %s: want ADDRESS/BITS", s)
		}
		for _, other := range pools {
			if other.Subnet.Overlaps(p) {
				return nil, errors.New("multiple overlapping subnet configuration is not supported")
			}
		}
		pools = append(pools, network.IPAMConfig{Subnet: p})
	}
	find := func(a netip.Addr) *network.IPAMConfig {
		for i := range pools {
			if pools[i].Subnet.Contains(a) {
				return &pools[i]
			}
		}
		return nil
	}
	for _, s := range ranges {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid ip-range %s: want ADDRESS/BITS", s)
		}
		pool := find(p.Addr())
		switch {
		case pool == nil:
			return nil, fmt.Errorf("no matching subnet for range %s", s)
		case pool.IPRange.IsValid():
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", s, pool.IPRange, pool.Subnet)
		}
		pool.IPRange = p
	}
	for _, s := range gateways {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("invalid gateway %s: want an address", s)
		}
		pool := find(a)
		switch {
		case pool == nil:
			return nil, fmt.Errorf("no matching subnet for gateway %s", s)
		case pool.Gateway.IsValid():
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", s, pool.Gateway, pool.Subnet)
		}
		pool.Gateway = a
	}
	for _, name := range sortedKeys(aux) {
		a, err := netip.ParseAddr(aux[name])
		if err != nil {
			return nil, fmt.Errorf("invalid aux-address %s: want NAME=ADDRESS", aux[name])
		}
		pool := find(a)
		if pool == nil {
			return nil, fmt.Errorf("no matching subnet for aux-address %s", a)
		}
		if pool.AuxAddress == nil {
			pool.AuxAddress = map[string]netip.Addr{}
		}
		pool.AuxAddress[name] = a
	}
	return pools, nil
}

// networkRow is a network as lists show it.
type networkRow struct {
	CreatedAt, Driver, ID, IPv4, IPv6, Internal, Labels, Name, Scope string
	labels                                                           map[string]string
}

// Label is the value of one label.
func (r networkRow) Label(name string) string { return r.labels[name] }

func networkLsCommand(c *cli) *cobra.Command {
	var text string
	var full, quiet bool
	var filter filters
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List networks",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if text == "" {
				text = c.file().NetworksFormat
			}
			return c.networks(cmd.Context(), filter, text, full, quiet)
		},
	}
	f := cmd.Flags()
	filterFlag(cmd, &filter, "f", "Provide filter values (e.g. \"driver=bridge\")")
	f.StringVar(&text, "format", "", listFormatUsage)
	f.BoolVar(&full, "no-trunc", false, "Do not truncate the output")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	aliases(cmd, "network ls", "network list")
	return cmd
}

func (c *cli) networks(ctx context.Context, filter filters, text string, full, quiet bool) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	q := url.Values{}
	if err := filter.into(q); err != nil {
		return err
	}
	var list []network.Summary
	if err := cl.Get(ctx, "/networks", q, &list); err != nil {
		return err
	}
	sortByName(list, func(n network.Summary) string { return n.Name })
	rows := make([]networkRow, len(list))
	for i, n := range list {
		rows[i] = networkRow{
			CreatedAt: n.Created.String(), Driver: n.Driver, ID: format.ID(n.ID, full), IPv4: strconv.FormatBool(n.EnableIPv4),
			IPv6: strconv.FormatBool(n.EnableIPv6), Internal: strconv.FormatBool(n.Internal), Labels: format.Labels(n.Labels),
			Name: n.Name, Scope: n.Scope, labels: n.Labels,
		}
	}
	if quiet {
		for _, r := range rows {
			fmt.Fprintln(c.std.Out, r.ID)
		}
		return nil
	}
	return format.Write(c.std.Out, format.List{
		Columns: []string{"ID", "Name", "Driver", "Scope"},
		Headers: map[string]string{
			"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4", "IPv6": "IPV6",
			"Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
		},
	}, text, rows)
}

func networkRmCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:     "rm NETWORK [NETWORK...]",
		Aliases: []string{"remove"},
		Short:   "Remove one or more networks",
		Args:    minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.engine()
			if err != nil {
				return err
			}
			failed := false
			for _, name := range args {
				err := cl.Delete(cmd.Context(), "/networks/"+url.PathEscape(name), nil, nil)
				switch {
				case err == nil:
					fmt.Fprintln(c.std.Out, name)
				case force && client.StatusOf(err) == http.StatusNotFound:
				default:
					fmt.Fprintln(c.std.Err, err)
					failed = true
				}
			}
			if failed {
				return &statusError{code: 1}
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	aliases(cmd, "network rm", "network remove")
	return cmd
}

func networkConnectCommand(c *cli) *cobra.Command {
	var a option.Endpoint
	cmd := &cobra.Command{
		Use:   "connect [OPTIONS] NETWORK CONTAINER",
		Short: "Connect a container to a network",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ep, err := a.Settings()
			if err != nil {
				return err
			}
			cl, err := c.engine()
			if err != nil {
				return err
			}
			body := network.ConnectRequest{Container: args[1], EndpointConfig: ep}
			return cl.Post(cmd.Context(), "/networks/"+url.PathEscape(args[0])+"/connect", nil, body, nil)
		},
	}
	a.AddFlags(cmd.Flags())
	return cmd
}

func networkDisconnectCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "disconnect [OPTIONS] NETWORK CONTAINER",
		Short: "Disconnect a container from a network",
		Args:  exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.engine()
			if err != nil {
				return err
			}
			body := network.DisconnectRequest{Container: strings.TrimSpace(args[1]), Force: force}
			return cl.Post(cmd.Context(), "/networks/"+url.PathEscape(args[0])+"/disconnect", nil, body, nil)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}
