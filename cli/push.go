package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/name"
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
			image, err := c.imageToMove(args[0], all, quiet)
			if err != nil {
				return err
			}
			if err := c.push(cmd, image, platform, quiet); err != nil {
				return err
			}
			if quiet {
				fmt.Fprintln(c.std.Out, image.String())
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

func (c *cli) push(cmd *cobra.Command, image name.Name, platform string, quiet bool) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	q := url.Values{}
	setNonEmpty(q, "tag", image.Tag)
	if platform != "" {
		raw, err := platformJSON(platform)
		if err != nil {
			return err
		}
		q.Set("platform", raw)
	}
	auth, err := c.registryAuth(image)
	if err != nil {
		return err
	}
	resp, err := cl.Do(cmd.Context(), client.Request{Method: http.MethodPost, Path: "/images/" + image.Repository() + "/push", Query: q, Header: auth})
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
