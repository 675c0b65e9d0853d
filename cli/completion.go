package cli

import (
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/config"
)

func completionCommand(c *cli) *cobra.Command {
	cmd := &cobra.Command{
		Use:       "completion bash|fish|zsh",
		Short:     "Generate the autocompletion script for a shell",
		Args:      exactArgs(1),
		ValidArgs: []string{"bash", "fish", "zsh"},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return cmd.Root().GenBashCompletionV2(c.std.Out, true)
			case "fish":
				return cmd.Root().GenFishCompletion(c.std.Out, true)
			case "zsh":
				return cmd.Root().GenZshCompletion(c.std.Out)
			}
			return argsError(cmd, "knows bash, fish and zsh", "Run")
		},
	}
	return cmd
}

// finder finds what an argument may be.
type finder func(c *cli, cmd *cobra.Command) ([]string, error)

// completeWith lets a shell offer what the engine knows; many is for commands
// that take more than one.
func completeWith(c *cli, find finder, many bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begin string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 && !many {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		list, err := find(c, cmd)
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, s := range list {
			if strings.HasPrefix(s, begin) {
				out = append(out, s)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func allContainers(c *cli, cmd *cobra.Command) ([]string, error) {
	return c.containerNames(cmd, url.Values{"all": {"1"}})
}

func runningContainers(c *cli, cmd *cobra.Command) ([]string, error) {
	return c.containerNames(cmd, nil)
}

func (c *cli) containerNames(cmd *cobra.Command, q url.Values) ([]string, error) {
	cl, err := c.engine()
	if err != nil {
		return nil, err
	}
	var list []container.Summary
	if err := cl.Get(cmd.Context(), "/containers/json", q, &list); err != nil {
		return nil, err
	}
	var out []string
	for _, s := range list {
		for _, n := range s.Names {
			out = append(out, strings.TrimPrefix(n, "/"))
		}
	}
	return out, nil
}

func knownImages(c *cli, cmd *cobra.Command) ([]string, error) {
	cl, err := c.engine()
	if err != nil {
		return nil, err
	}
	var list []image.Summary
	if err := cl.Get(cmd.Context(), "/images/json", nil, &list); err != nil {
		return nil, err
	}
	var out []string
	for _, s := range list {
		for _, t := range s.RepoTags {
			if !strings.HasPrefix(t, "<none>") {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

func networkNames(c *cli, cmd *cobra.Command) ([]string, error) {
	cl, err := c.engine()
	if err != nil {
		return nil, err
	}
	var list []network.Summary
	if err := cl.Get(cmd.Context(), "/networks", nil, &list); err != nil {
		return nil, err
	}
	var out []string
	for _, n := range list {
		out = append(out, n.Name)
	}
	return out, nil
}

func volumeNames(c *cli, cmd *cobra.Command) ([]string, error) {
	cl, err := c.engine()
	if err != nil {
		return nil, err
	}
	var list volume.ListResponse
	if err := cl.Get(cmd.Context(), "/volumes", nil, &list); err != nil {
		return nil, err
	}
	var out []string
	for _, v := range list.Volumes {
		out = append(out, v.Name)
	}
	return out, nil
}

func contextNames(c *cli, _ *cobra.Command) ([]string, error) {
	list, err := config.Contexts(c.file().Dir)
	out := []string{config.DefaultContext}
	for _, x := range list {
		out = append(out, x.Name)
	}
	return out, err
}

// files lets a shell offer files.
func files(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return nil, cobra.ShellCompDirectiveDefault
}
