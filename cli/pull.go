package cli

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/config"
	"github.com/gantryd/gantry/cli/internal/progress"
)

func pullCommand(c *cli) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use:   "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short: "Download an image from a registry",
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
				if tagged, ok := named.(reference.Tagged); ok && !quiet {
					fmt.Fprintf(c.std.Out, "Using default tag: %s\n", tagged.Tag())
				}
			}
			out := c.std.Out
			if quiet {
				out = io.Discard
			}
			if err := c.pullImage(cmd.Context(), named, platform, out); err != nil {
				return err
			}
			fmt.Fprintln(c.std.Out, named.String())
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all-tags", "a", false, "Download all tagged images in the repository")
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	f.StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	trustFlag(f)
	aliases(cmd, "image pull", "pull")
	return cmd
}

// pullImage asks the engine to pull name and shows its progress on out. A name
// without tag and digest means all tags.
func (c *cli) pullImage(ctx context.Context, name reference.Named, platform string, out io.Writer) error {
	if name == nil {
		return errors.New("an image cannot be pulled by its ID")
	}
	cl, err := c.engine()
	if err != nil {
		return err
	}
	q := url.Values{"fromImage": {reference.TrimNamed(name).String()}}
	switch ref := name.(type) {
	case reference.Digested:
		q.Set("tag", ref.Digest().String())
	case reference.Tagged:
		q.Set("tag", ref.Tag())
	}
	if platform != "" {
		q.Set("platform", platform)
	}
	auth, err := c.registryAuth(name)
	if err != nil {
		return err
	}
	resp, err := cl.Do(ctx, client.Request{Method: http.MethodPost, Path: "/images/create", Query: q, Header: auth})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return progress.Show(out, resp.Body, nil)
}

// registryAuth is the header with the credential for the registry of name.
func (c *cli) registryAuth(name reference.Named) (map[string]string, error) {
	server := reference.Domain(name)
	if server == "docker.io" {
		server = config.IndexServer
	}
	cred, err := c.file().Credential(server)
	if err != nil {
		return nil, err
	}
	return authHeader(cred)
}

func authHeader(cred registry.AuthConfig) (map[string]string, error) {
	raw, err := json.Marshal(cred)
	if err != nil {
		return nil, err
	}
	return map[string]string{registry.AuthHeader: base64.URLEncoding.EncodeToString(raw)}, nil
}
