package cli

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/registry"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/config"
	"github.com/gantryd/gantry/cli/internal/name"
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
			image, err := c.imageToMove(args[0], all, quiet)
			if err != nil {
				return err
			}
			out := c.std.Out
			if quiet {
				out = io.Discard
			}
			if err := c.pullImage(cmd.Context(), image, platform, out); err != nil {
				return err
			}
			fmt.Fprintln(c.std.Out, image.String())
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

// imageToMove is the image that a pull or push names: without a tag or digest the
// default tag is meant, unless all are.
func (c *cli) imageToMove(arg string, all, quiet bool) (name.Name, error) {
	image, err := name.Parse(arg)
	switch {
	case err != nil:
		return image, err
	case all && !image.Bare():
		return image, errors.New("tag can't be used with --all-tags/-a")
	case !all && image.Bare():
		if image = image.Tagged(); !quiet {
			fmt.Fprintf(c.std.Out, "Using default tag: %s\n", image.Tag)
		}
	}
	return image, nil
}

// pullImage asks the engine to pull image and shows its progress on out. A name
// without tag and digest means all tags.
func (c *cli) pullImage(ctx context.Context, image name.Name, platform string, out io.Writer) error {
	if image == (name.Name{}) {
		return errors.New("an image cannot be pulled by its ID")
	}
	cl, err := c.engine()
	if err != nil {
		return err
	}
	q := url.Values{"fromImage": {image.Repository()}}
	setNonEmpty(q, "tag", cmp.Or(image.Digest, image.Tag))
	if platform != "" {
		q.Set("platform", platform)
	}
	auth, err := c.registryAuth(image)
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

// registryAuth is the header with the credential for the registry of image.
func (c *cli) registryAuth(image name.Name) (map[string]string, error) {
	server := image.Domain
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
