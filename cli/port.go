package cli

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"slices"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/cobra"
)

func portCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "port CONTAINER [PRIVATE_PORT[/PROTO]]",
		Short: "List port mappings or a specific mapping for the container",
		Args:  rangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := c.engine()
			if err != nil {
				return err
			}
			var info container.InspectResponse
			if err := cl.Get(cmd.Context(), "/containers/"+url.PathEscape(args[0])+"/json", nil, &info); err != nil {
				return err
			}
			if len(args) == 2 {
				return c.onePort(args[0], args[1], info.NetworkSettings.Ports)
			}
			c.allPorts(info.NetworkSettings.Ports)
			return nil
		},
	}
	aliases(cmd, "container port", "port")
	return cmd
}

func (c *cli) onePort(name, text string, bound network.PortMap) error {
	p, err := network.ParsePort(text)
	if err != nil {
		return err
	}
	list, ok := bound[p]
	if !ok || list == nil {
		return fmt.Errorf("Error: No public port '%s' published for %s", text, name)
	}
	for _, b := range list {
		fmt.Fprintln(c.std.Out, net.JoinHostPort(b.HostIP.String(), b.HostPort))
	}
	return nil
}

func (c *cli) allPorts(bound network.PortMap) {
	var inside []network.Port
	for p := range bound {
		inside = append(inside, p)
	}
	slices.SortFunc(inside, func(a, b network.Port) int {
		return cmp.Or(cmp.Compare(a.Num(), b.Num()), cmp.Compare(a.Proto(), b.Proto()))
	})
	for _, p := range inside {
		for _, b := range bound[p] {
			fmt.Fprintf(c.std.Out, "%s -> %s\n", p, net.JoinHostPort(b.HostIP.String(), b.HostPort))
		}
	}
}
