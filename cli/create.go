package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/name"
	"github.com/gantryd/gantry/cli/internal/option"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

// When to pull the image of a container that is to be created.
const (
	pullAlways  = "always"
	pullMissing = "missing"
	pullNever   = "never"
)

// creation is what create and run have in common.
type creation struct {
	opts  *option.Container
	pull  string
	quiet bool
	// explain asks the engine to note what each part does for this start.
	explain bool
}

func (cr *creation) addFlags(f *pflag.FlagSet) {
	cr.opts = option.NewContainer(f)
	f.StringVar(&cr.pull, "pull", pullMissing, `Pull image before running ("always", "missing",
"never")`)
	f.BoolVarP(&cr.quiet, "quiet", "q", false, "Suppress the pull output")
	trustFlag(f)
}

// trustFlag takes --disable-content-trust, which has no meaning any more.
func trustFlag(f *pflag.FlagSet) {
	f.Bool("disable-content-trust", true, "Skip image verification")
	f.Lookup("disable-content-trust").Hidden = true
}

func createCommand(c *cli) *cobra.Command {
	var cr creation
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create a new container",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cr.opts.Image, cr.opts.Command = args[0], args[1:]
			body, err := cr.body()
			if err != nil {
				return withHelp(cmd, err, exitEngine)
			}
			id, err := c.create(cmd.Context(), &cr, body)
			if err != nil {
				return err
			}
			fmt.Fprintln(c.std.Out, id)
			return nil
		},
	}
	cmd.Flags().SetInterspersed(false)
	cr.addFlags(cmd.Flags())
	aliases(cmd, "container create", "create")
	return cmd
}

// body makes the request, or says which option was wrong.
func (cr *creation) body() (*option.Body, error) {
	switch cr.pull {
	case pullAlways, pullMissing, pullNever, "":
	default:
		return nil, fmt.Errorf(`invalid pull option: '%s': must be one of "always", "missing" or "never"`, cr.pull)
	}
	return cr.opts.Request()
}

// create asks the engine for a container, pulling its image if that is wanted,
// and returns the ID.
func (c *cli) create(ctx context.Context, cr *creation, body *option.Body) (string, error) {
	cl, err := c.engine()
	if err != nil {
		return "", err
	}
	cid, err := newCIDFile(cr.opts.CIDFile)
	if err != nil {
		return "", err
	}
	defer cid.Close()
	image, err := imageName(cr.opts.Image)
	if err != nil {
		return "", err
	}
	if body.MacAddress != "" {
		v, err := cl.Version(ctx)
		if err != nil {
			return "", err
		}
		if !client.Less(v, "1.44") {
			body.MacAddress = "" // it stands at the endpoint
		}
	}
	if cr.pull == pullAlways {
		if err := c.pullFor(ctx, cr, image); err != nil {
			return "", err
		}
	}
	req := client.Request{Method: http.MethodPost, Path: "/containers/create", Query: url.Values{}, JSON: body, Header: explainHeader(cr.explain)}
	if cr.opts.Name != "" {
		req.Query.Set("name", cr.opts.Name)
	}
	if cr.opts.Platform != "" {
		req.Query.Set("platform", cr.opts.Platform)
	}
	var resp container.CreateResponse
	err = cl.Call(ctx, req, &resp)
	if imageMissing(err) && cr.pull == pullMissing && !strings.HasPrefix(cr.opts.Image, "sha256:") {
		if !cr.quiet {
			fmt.Fprintf(c.std.Err, "Unable to find image '%s' locally\n", image.Familiar())
		}
		if err := c.pullFor(ctx, cr, image); err != nil {
			return "", err
		}
		err = cl.Call(ctx, req, &resp)
	}
	if err != nil {
		return "", err
	}
	for _, w := range resp.Warnings {
		fmt.Fprintf(c.std.Err, "WARNING: %s\n", w)
	}
	return resp.ID, cid.write(resp.ID)
}

// imageMissing reports whether create was refused for want of the image: other
// things can be not found too.
func imageMissing(err error) bool {
	return client.StatusOf(err) == http.StatusNotFound && strings.Contains(strings.ToLower(err.Error()), "no such image")
}

// pullFor pulls the image of a container that is to be created; what it says does
// not belong to the container's output.
func (c *cli) pullFor(ctx context.Context, cr *creation, image name.Name) error {
	out := c.std.Err
	if cr.quiet {
		out = io.Discard
	}
	return c.pullImage(ctx, image, cr.opts.Platform, out)
}

// imageName is an image's name with a tag or digest; empty for an image's ID.
func imageName(s string) (name.Name, error) {
	if name.IsID(s) {
		return name.Name{}, nil
	}
	n, err := name.Parse(s)
	return n.Tagged(), err
}

// cidFile is where --cidfile wants the ID. It is made before the container, and
// taken away again when there is none.
type cidFile struct {
	path    string
	file    *os.File
	written bool
}

func newCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	if _, err := os.Stat(path); err == nil {
		return nil, fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{path: path, file: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.file == nil {
		return nil
	}
	if _, err := c.file.WriteString(id); err != nil {
		return fmt.Errorf("failed to write the container ID to the file: %w", err)
	}
	c.written = true
	return nil
}

// Close closes the file, and removes it if no ID was written.
func (c *cidFile) Close() error {
	if c.file == nil {
		return nil
	}
	err := c.file.Close()
	if !c.written {
		err = errors.Join(err, os.Remove(c.path))
	}
	return err
}

// consoleSize is the size that a new terminal in a container starts with.
func (c *cli) consoleSize() [2]uint {
	if f, ok := terminal.File(c.std.Out); ok {
		if h, w, ok := terminal.Size(f); ok {
			return [2]uint{h, w}
		}
	}
	return [2]uint{}
}
