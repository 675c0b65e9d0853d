package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/config"
	"github.com/gantryd/gantry/cli/internal/format"
	"github.com/gantryd/gantry/cli/internal/option"
)

func contextShowCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the name of the current context", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(c.std.Out, c.contextName())
			return err
		},
	}
}

func contextUseCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use: "use CONTEXT", Short: "Set the current docker context", Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, name := c.file(), args[0]
			if name != config.DefaultContext {
				if _, err := config.ReadContext(f.Dir, name); err != nil {
					return err
				}
			}
			f.CurrentContext = name
			if name == config.DefaultContext {
				f.CurrentContext = ""
			}
			if err := f.Save(); err != nil {
				return err
			}
			fmt.Fprintln(c.std.Out, name)
			fmt.Fprintf(c.std.Err, "Current context is now %q\n", name)
			if host := os.Getenv("DOCKER_HOST"); host != "" && name != config.DefaultContext {
				fmt.Fprintf(c.std.Err, "Warning: DOCKER_HOST environment variable overrides the active context. To use %q, either set the global --context flag, or unset DOCKER_HOST environment variable.\n", name)
			}
			return nil
		},
	}
}

func contextCreateCommand(c *cli) *cobra.Command {
	var description, from string
	var endpoint map[string]string
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] CONTEXT",
		Short: "Create a context",
		Args:  exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f := c.file()
			source := config.Context{Endpoints: map[string]config.ContextEndpoint{"docker": {Host: c.address()}}}
			if from != "" && from != config.DefaultContext {
				var err error
				if source, err = config.ReadContext(f.Dir, from); err != nil {
					return err
				}
			}
			e := config.NewContext{Name: args[0], Description: description, Host: source.Host(), SkipTLSVerify: source.Endpoints["docker"].SkipTLSVerify}
			if description == "" {
				e.Description = source.Description()
			}
			if err := e.Set(endpoint); err != nil {
				return err
			}
			if _, err := client.ParseEndpoint(e.Host, nil); err != nil {
				return fmt.Errorf("unable to parse docker host: %w", err)
			}
			if err := e.Write(f.Dir); err != nil {
				return err
			}
			fmt.Fprintln(c.std.Out, args[0])
			fmt.Fprintf(c.std.Err, "Successfully created context %q\n", args[0])
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&description, "description", "", "Description of the context")
	f.Var(option.Func{Word: "map", Read: func(s string) error {
		var err error
		endpoint, err = config.ParseEndpoint(s)
		return err
	}}, "docker", "set the docker endpoint: host=ADDRESS[,ca=FILE]\n[,cert=FILE][,key=FILE][,skip-tls-verify=BOOL]")
	f.StringVar(&from, "from", "", "create context from a named context")
	return cmd
}

func contextRmCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm CONTEXT [CONTEXT...]", Aliases: []string{"remove"}, Short: "Remove one or more contexts", Args: minArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			var errs []error
			for _, name := range args {
				if err := c.removeContext(name, force); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(c.std.Out, name)
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	aliases(cmd, "context rm", "context remove")
	return cmd
}

func (c *cli) removeContext(name string, force bool) error {
	if name == config.DefaultContext {
		return errors.New(`context "default" cannot be removed`)
	}
	ctx, err := config.ReadContext(c.file().Dir, name)
	if err != nil {
		if force {
			return nil
		}
		return fmt.Errorf("context %q does not exist", name)
	}
	if name == c.contextName() && !force {
		return fmt.Errorf("context %q is in use, set -f flag to force remove", name)
	}
	return ctx.Remove()
}

// contextRow is a context as lists show it.
type contextRow struct {
	Current                                  bool
	Description, DockerEndpoint, Error, Name string
}

func contextLsCommand(c *cli) *cobra.Command {
	var text string
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List contexts", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			rows, err := c.contextRows()
			if err != nil {
				return err
			}
			if quiet {
				for _, r := range rows {
					fmt.Fprintln(c.std.Out, r.Name)
				}
				return nil
			}
			return c.listContexts(rows, text)
		},
	}
	cmd.Flags().StringVar(&text, "format", "", listFormatUsage)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	aliases(cmd, "context ls", "context list")
	return cmd
}

func (c *cli) contextRows() ([]contextRow, error) {
	current := c.contextName()
	rows := []contextRow{{
		Name: config.DefaultContext, Current: current == config.DefaultContext,
		Description: "Current DOCKER_HOST based configuration", DockerEndpoint: c.address(),
	}}
	list, err := config.Contexts(c.file().Dir)
	if err != nil {
		return nil, err
	}
	found := current == config.DefaultContext
	for _, x := range list {
		rows = append(rows, contextRow{Name: x.Name, Current: x.Name == current, Description: x.Description(), DockerEndpoint: x.Host()})
		found = found || x.Name == current
	}
	if !found {
		_, err := config.ReadContext(c.file().Dir, current)
		rows = append(rows, contextRow{Name: current, Current: true, Error: err.Error()})
	}
	sortByName(rows, func(r contextRow) string { return r.Name })
	return rows, nil
}

func (c *cli) listContexts(rows []contextRow, text string) error {
	l := format.List{
		Columns: []string{"Name", "Description", "DockerEndpoint", "Error"},
		Headers: map[string]string{"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"},
	}
	table := text == "" || text == "table"
	if table {
		for i, r := range rows {
			if r.Current {
				rows[i].Name += " *"
			}
			rows[i].Description = format.Ellipsis(r.Description, 60)
			rows[i].Error = format.Ellipsis(r.Error, 45)
		}
	}
	if err := format.Write(c.std.Out, l, text, rows); err != nil {
		return err
	}
	if os.Getenv("DOCKER_HOST") != "" && c.global.context == "" {
		fmt.Fprintln(c.std.Err, "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.")
	}
	return nil
}

// contextView is what inspect says of a context.
type contextView struct {
	Name        string
	Metadata    json.RawMessage
	Endpoints   map[string]contextEndpoint
	TLSMaterial map[string][]string
	Storage     struct{ MetadataPath, TLSPath string }
}

type contextEndpoint struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

func contextInspectCommand(c *cli) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] [CONTEXT] [CONTEXT...]", Short: "Display detailed information on one or more contexts",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{c.contextName()}
			}
			var found []format.Object
			var errs []error
			for _, name := range args {
				v, err := c.viewContext(name)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				raw, err := json.Marshal(v)
				if err != nil {
					return err
				}
				found = append(found, format.Object{Raw: raw, Typed: &contextView{}})
			}
			return errors.Join(append(errs, format.Inspect(c.std.Out, text, found))...)
		},
	}
	formatFlag(cmd, &text)
	return cmd
}

func (c *cli) viewContext(name string) (*contextView, error) {
	v := &contextView{Name: name, Metadata: json.RawMessage("{}"), TLSMaterial: map[string][]string{}}
	if name == config.DefaultContext {
		v.Endpoints = map[string]contextEndpoint{"docker": {Host: c.address()}}
		v.Storage.MetadataPath, v.Storage.TLSPath = "<IN MEMORY>", "<IN MEMORY>"
		return v, nil
	}
	x, err := config.ReadContext(c.file().Dir, name)
	if err != nil {
		return nil, err
	}
	v.Metadata = x.Metadata
	v.Endpoints = map[string]contextEndpoint{}
	for k, e := range x.Endpoints {
		v.Endpoints[k] = contextEndpoint(e)
	}
	if v.TLSMaterial, err = x.TLSFiles(); err != nil {
		return nil, err
	}
	v.Storage.MetadataPath, v.Storage.TLSPath = x.MetaDir(), x.TLSDir()
	return v, nil
}
