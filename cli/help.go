package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/option"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

const (
	groupKey   = "group"
	aliasesKey = "aliases"
)

// newList is option.NewList.
func newList(to *[]string, check func(string) (string, error)) *option.List {
	return option.NewList(to, check)
}

// aliases notes all the ways in which a command can be called, for its help.
func aliases(cmd *cobra.Command, names ...string) {
	annotate(cmd, aliasesKey, "gantry "+strings.Join(names, ", gantry "))
}

func annotate(cmd *cobra.Command, key, value string) {
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	cmd.Annotations[key] = value
}

// usageLine is "Usage:  gantry run [OPTIONS] …".
func usageLine(cmd *cobra.Command) string {
	parent := ""
	if cmd.HasParent() {
		parent = cmd.Parent().CommandPath() + " "
	}
	return "Usage:  " + parent + strings.ReplaceAll(cmd.Use, "\n", "\n\t"+parent)
}

// help prints the help of cmd in docker's form.
func (c *cli) help(cmd *cobra.Command, _ []string) { c.usage(c.std.Out, cmd) }

func (c *cli) usage(w io.Writer, cmd *cobra.Command) {
	fmt.Fprintln(w, usageLine(cmd))
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	fmt.Fprintf(w, "\n%s\n", about)
	if a := cmd.Annotations[aliasesKey]; a != "" && strings.Contains(a, ",") {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", a)
	}
	for _, g := range []struct{ key, title string }{
		{"common", "Common Commands"}, {"management", "Management Commands"}, {"", "Commands"},
	} {
		listCommands(w, cmd, g.key, g.title)
	}
	if cmd.HasAvailableLocalFlags() {
		title := "Options"
		if !cmd.HasParent() {
			title = "Global Options"
		}
		fmt.Fprintf(w, "\n%s:\n%s", title, strings.TrimRight(cmd.LocalFlags().FlagUsagesWrapped(c.width()), " \n")+"\n")
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
}

func listCommands(w io.Writer, cmd *cobra.Command, key, title string) {
	width := 11
	var subs []*cobra.Command
	for _, s := range cmd.Commands() {
		if s.IsAvailableCommand() && s.Annotations[groupKey] == key {
			subs = append(subs, s)
		}
	}
	if len(subs) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s:\n", title)
	for _, s := range subs {
		fmt.Fprintf(w, "  %-*s %s\n", width, s.Name(), s.Short)
	}
}

// width is how wide help may be.
func (c *cli) width() int {
	if f, ok := terminal.File(c.std.Out); ok {
		if _, w, ok := terminal.Size(f); ok {
			return int(w)
		}
	}
	return 80
}
