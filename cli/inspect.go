package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/volume"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/format"
)

// kind is a sort of object that can be inspected.
type kind struct {
	name  string
	path  func(ref string) string
	typed func() any
}

// kinds are asked in this order: the first that knows the name answers.
func kinds() []kind {
	return []kind{
		{"container", func(ref string) string { return "/containers/" + url.PathEscape(ref) + "/json" }, func() any { return &container.InspectResponse{} }},
		{"image", func(ref string) string { return "/images/" + ref + "/json" }, func() any { return &image.InspectResponse{} }},
		{"network", func(ref string) string { return "/networks/" + url.PathEscape(ref) }, func() any { return &network.Inspect{} }},
		{"volume", func(ref string) string { return "/volumes/" + url.PathEscape(ref) }, func() any { return &volume.Volume{} }},
	}
}

func kindOf(name string) kind {
	for _, k := range kinds() {
		if k.name == name {
			return k
		}
	}
	return kind{}
}

func inspectCommand(c *cli) *cobra.Command {
	var text, only string
	var size bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short: "Return low-level information on Docker objects",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("type") && only == "" {
				return errors.New(`type is empty: must be one of "container", "image", "network", "volume"`)
			}
			if only != "" && kindOf(only).name == "" {
				return fmt.Errorf(`unknown type: %q: must be one of "container", "image", "network", "volume"`, only)
			}
			return c.inspect(cmd.Context(), args, text, only, sizeQuery(size))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&text, "format", "f", "", formatUsage)
	f.BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	f.StringVar(&only, "type", "", "Only inspect objects of the given type")
	return cmd
}

func sizeQuery(on bool) url.Values {
	q := url.Values{}
	if on {
		q.Set("size", "1")
	}
	return q
}

// inspectOf is the inspect command of one kind of object.
func inspectOf(name, use, short string) func(c *cli) *cobra.Command {
	return func(c *cli) *cobra.Command {
		var text, platform string
		var size, verbose bool
		cmd := &cobra.Command{
			Use: use, Short: short, Args: minArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				q := sizeQuery(size)
				if verbose {
					q.Set("verbose", "true")
				}
				if platform != "" {
					raw, err := platformJSON(platform)
					if err != nil {
						return err
					}
					q.Set("platform", raw)
				}
				return c.inspect(cmd.Context(), args, text, name, q)
			},
		}
		f := cmd.Flags()
		f.StringVarP(&text, "format", "f", "", formatUsage)
		switch name {
		case "container":
			f.BoolVarP(&size, "size", "s", false, "Display total file sizes")
		case "image":
			f.StringVar(&platform, "platform", "", "Inspect a specific platform of the multi-platform\nimage. 'os[/arch[/variant]]' (e.g., linux/amd64)")
		case "network":
			f.BoolVarP(&verbose, "verbose", "v", false, "Verbose output for diagnostics")
		}
		return cmd
	}
}

// inspect prints what the engine knows of names. What was found is printed even
// where another name was not.
func (c *cli) inspect(ctx context.Context, names []string, text, only string, q url.Values) error {
	if _, err := format.Parse(text); err != nil {
		return &statusError{code: exitUsage, err: err}
	}
	cl, err := c.engine()
	if err != nil {
		return err
	}
	var found []format.Object
	var errs []error
	for _, name := range names {
		o, err := findObject(ctx, cl, name, only, q)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		found = append(found, o)
	}
	if text == "" || len(found) > 0 {
		if err := format.Inspect(c.std.Out, text, found); err != nil {
			errs = append([]error{err}, errs...)
		}
	}
	return errors.Join(errs...)
}

func findObject(ctx context.Context, cl *client.Client, name, only string, q url.Values) (format.Object, error) {
	for _, k := range kinds() {
		if only != "" && k.name != only {
			continue
		}
		var raw json.RawMessage
		kq := q
		if only == "" && k.name != "container" {
			kq = nil // --size is for containers
		}
		err := cl.Get(ctx, k.path(name), kq, &raw)
		switch {
		case err == nil:
			return format.Object{Raw: raw, Typed: k.typed()}, nil
		case only == "" && client.StatusOf(err) == http.StatusNotFound:
			continue
		default:
			return format.Object{}, err
		}
	}
	return format.Object{}, fmt.Errorf("Error: No such object: %s", name)
}
