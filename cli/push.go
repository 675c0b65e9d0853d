package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/distribution/reference"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/progress"
)

func pushCommand(c *cli) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:   "push [OPTIONS] NAME[:TAG]",
		Short: "Upload an image to a registry",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			named, err := reference.ParseNormalizedNamed(args[0])
			switch {
			case err != nil:
				return err
			case all && !reference.IsNameOnly(named):
				return errors.New("tag can't be used with --all-tags/-a")
			case !all && reference.IsNameOnly(named):
				named = reference.TagNameOnly(named)
				if t, ok := named.(reference.Tagged); ok && !quiet {
					fmt.Fprintf(c.std.Out, "Using default tag: %s\n", t.Tag())
				}
			}
			if err := c.push(cmd, named, platform, quiet); err != nil {
				return err
			}
			if quiet {
				fmt.Fprintln(c.std.Out, named.String())
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	f.StringVar(&platform, "platform", "", "Push a platform-specific manifest as a\nsingle-platform image to the registry.\n'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
	trustFlag(f)
	aliases(cmd, "image push", "push")
	return cmd
}

func (c *cli) push(cmd *cobra.Command, named reference.Named, platform string, quiet bool) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	q := url.Values{}
	if t, ok := named.(reference.Tagged); ok {
		q.Set("tag", t.Tag())
	}
	if platform != "" {
		raw, err := platformJSON(platform)
		if err != nil {
			return err
		}
		q.Set("platform", raw)
	}
	auth, err := c.registryAuth(named)
	if err != nil {
		return err
	}
	resp, err := cl.Do(cmd.Context(), client.Request{Method: http.MethodPost, Path: "/images/" + named.Name() + "/push", Query: q, Header: auth})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out := c.std.Out
	if quiet {
		out = io.Discard
	}
	return progress.Show(out, resp.Body, func(json.RawMessage) {})
}
