package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/gantryd/gantry/internal/version"
)

// group is the heading under which help lists a command.
type group int

const (
	plain group = iota
	common
)

// entry is one command of the tree. Building a command makes all of its options,
// so only the one that was asked for is built.
type entry struct {
	name  string
	group group
	build func(c *cli) *cobra.Command
	args  finder  // what a shell offers for its arguments
	one   bool    // it takes one of them
	sub   []entry // of a management command
	short string  // of a management command
}

// root makes the command line's tree, as much of it as args need.
func (c *cli) root(args []string) (*cobra.Command, error) {
	root := &cobra.Command{
		Use:                   "gantry [OPTIONS] COMMAND [ARG...]",
		Short:                 "Containers, from this command to the system calls",
		SilenceUsage:          true,
		SilenceErrors:         true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		CompletionOptions:     cobra.CompletionOptions{DisableDefaultCmd: true},
		Args:                  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.global.version {
				fmt.Fprintf(c.std.Out, "Gantry version %s, build %s\n", version.Version, version.Commit)
				return nil
			}
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.SetOut(c.std.Out)
	root.SetErr(c.std.Err)
	root.SetIn(c.std.In)
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(c.help)
	c.globalFlags(root.Flags())
	root.PersistentFlags().Bool("help", false, "Print usage")
	root.PersistentFlags().Lookup("help").Hidden = true
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return checkLogLevel(c.global.logLevel) }
	root.SetArgs(args)
	c.grow(root, commands(), firstCommand(root.Flags(), args))
	return root, nil
}

// grow adds to parent the command that args name, or all where they name none.
func (c *cli) grow(parent *cobra.Command, entries []entry, args []string) {
	if len(args) > 0 {
		i := slices.IndexFunc(entries, func(e entry) bool { return e.name == args[0] })
		if i >= 0 {
			parent.AddCommand(c.build(entries[i], args[1:]))
			return
		}
	}
	for _, e := range entries {
		parent.AddCommand(c.build(e, nil))
	}
}

func (c *cli) build(e entry, args []string) *cobra.Command {
	if e.build != nil {
		cmd := e.build(c)
		cmd.DisableFlagsInUseLine = true
		if e.args != nil {
			cmd.ValidArgsFunction = completeWith(c, e.args, !e.one)
		} else if cmd.ValidArgs == nil && cmd.ValidArgsFunction == nil {
			cmd.ValidArgsFunction = cobra.NoFileCompletions
		}
		if e.group == common {
			annotate(cmd, groupKey, "common")
		}
		return cmd
	}
	cmd := &cobra.Command{
		Use: e.name + " COMMAND", Short: e.short, DisableFlagsInUseLine: true,
		Args: cobra.ArbitraryArgs, Annotations: map[string]string{groupKey: "management"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			c.usage(c.std.Err, cmd) // nothing was asked for: it is no answer
			return nil
		},
	}
	c.grow(cmd, e.sub, args)
	return cmd
}

// firstCommand skips the options before the command.
func firstCommand(flags *pflag.FlagSet, args []string) []string {
	for i := 0; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "--":
			return nil
		case len(a) > 2 && a[:2] == "--":
			f := flags.Lookup(a[2:]) // nil for --name=value
			if f != nil && f.NoOptDefVal == "" {
				i++
			}
		case len(a) > 1 && a[0] == '-':
			f := flags.ShorthandLookup(a[len(a)-1:])
			if f != nil && f.NoOptDefVal == "" && len(a) == 2 {
				i++
			}
		default:
			return args[i:]
		}
	}
	return nil
}

func checkLogLevel(level string) error {
	switch level {
	case "trace", "debug", "info", "warn", "warning", "error", "fatal", "panic":
		return nil
	}
	//lint:ignore ST1005 docker says it so
	return fmt.Errorf("Unable to parse logging level: %s", level)
}

func unknownCommand(cmd *cobra.Command, name string) error {
	usage := ""
	if cmd.HasParent() {
		usage = "Usage:  " + cmd.CommandPath() + "\n\n"
	}
	return fmt.Errorf("gantry: unknown command: %s %s\n\n%sRun '%s --help' for more information",
		cmd.CommandPath(), name, usage, cmd.CommandPath())
}

func (c *cli) globalFlags(f *pflag.FlagSet) {
	g := &c.global
	f.SetInterspersed(false)
	f.StringVar(&g.configDir, "config", "", "Location of client config files (default \"~/.docker\")")
	f.StringVarP(&g.context, "context", "c", "", "Name of the context to use to connect to the\ndaemon (overrides DOCKER_HOST env var and\ndefault context set with \"gantry context use\")")
	f.BoolVarP(&g.debug, "debug", "D", false, "Enable debug mode")
	f.VarP(newList(&g.hosts, nil), "host", "H", "Daemon socket to connect to")
	f.StringVarP(&g.logLevel, "log-level", "l", "info", "Set the logging level (\"debug\", \"info\",\n\"warn\", \"error\", \"fatal\")")
	f.BoolVar(&g.tls, "tls", false, "Use TLS; implied by --tlsverify")
	f.StringVar(&g.tlsCA, "tlscacert", "", "Trust certs signed only by this CA (default\n\"~/.docker/ca.pem\")")
	f.StringVar(&g.tlsCert, "tlscert", "", "Path to TLS certificate file (default\n\"~/.docker/cert.pem\")")
	f.StringVar(&g.tlsKey, "tlskey", "", "Path to TLS key file (default \"~/.docker/key.pem\")")
	f.BoolVar(&g.tlsVerify, "tlsverify", false, "Use TLS and verify the remote")
	f.BoolVarP(&g.version, "version", "v", false, "Print version information and quit")
}
