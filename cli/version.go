package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/format"
	"github.com/gantryd/gantry/internal/version"
)

// versionInfo is what templates and JSON see.
type versionInfo struct {
	Client clientVersion
	Server *serverVersion
}

type clientVersion struct {
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	Context           string
}

// serverVersion flattens nothing: it is the engine's own answer.
type serverVersion struct {
	system.VersionResponse
}

func versionCommand(c *cli) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use:   "version [OPTIONS]",
		Short: "Show the Gantry version information",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			info, err := c.versions(cmd)
			if info == nil {
				return err
			}
			if perr := c.printVersions(text, info); perr != nil {
				return errors.Join(perr, err)
			}
			return err
		},
	}
	formatFlag(cmd, &text)
	return cmd
}

// versions asks the engine for its version: one request, in no API version, for
// the answer is the same in all. Without an engine the client's part remains.
func (c *cli) versions(cmd *cobra.Command) (*versionInfo, error) {
	info := &versionInfo{Client: clientVersion{
		Version: version.Version, APIVersion: client.MaxVersion, DefaultAPIVersion: client.MaxVersion,
		GitCommit: version.Commit, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, Context: c.contextName(),
	}}
	cl, err := c.engine()
	if err != nil {
		return nil, err
	}
	var v system.VersionResponse
	err = cl.Call(cmd.Context(), client.Request{Method: http.MethodGet, Path: "/version", Unversioned: true}, &v)
	info.Client.APIVersion = cl.Wanted()
	if err != nil {
		return info, err
	}
	if client.Less(v.APIVersion, info.Client.APIVersion) {
		info.Client.APIVersion = v.APIVersion
	}
	info.Server = &serverVersion{v}
	return info, nil
}

func (c *cli) printVersions(text string, info *versionInfo) error {
	switch text {
	case "":
		w := tabwriter.NewWriter(c.std.Out, 20, 1, 1, ' ', 0)
		writeVersions(w, info)
		return w.Flush()
	case "json":
		text = "{{json .}}"
	}
	t, err := format.Parse(text)
	if err != nil {
		return &statusError{code: exitUsage, err: err}
	}
	if err := t.Execute(c.std.Out, info); err != nil {
		return err
	}
	_, err = fmt.Fprintln(c.std.Out)
	return err
}

func writeVersions(w io.Writer, info *versionInfo) {
	cl := info.Client
	api := cl.APIVersion
	if api != cl.DefaultAPIVersion {
		api += " (downgraded from " + cl.DefaultAPIVersion + ")"
	}
	fmt.Fprintf(w, "Client:\n Version:\t%s\n API version:\t%s\n Go version:\t%s\n Git commit:\t%s\n OS/Arch:\t%s/%s\n Context:\t%s\n",
		cl.Version, api, cl.GoVersion, cl.GitCommit, cl.Os, cl.Arch, cl.Context)
	if info.Server == nil {
		return
	}
	s := info.Server
	fmt.Fprintf(w, "\nServer:")
	if s.Platform.Name != "" {
		fmt.Fprintf(w, " %s", s.Platform.Name)
	}
	fmt.Fprintln(w)
	for _, comp := range s.Components {
		fmt.Fprintf(w, " %s:\n  Version:\t%s\n", comp.Name, comp.Version)
		writeComponent(w, comp)
	}
}

// writeComponent prints what is known of a component, in docker's order and words
// for the engine and by name for the others.
func writeComponent(w io.Writer, comp system.ComponentVersion) {
	d := comp.Details
	if comp.Name != "Engine" {
		for _, k := range sortedKeys(d) {
			fmt.Fprintf(w, "  %s:\t%s\n", k, d[k])
		}
		return
	}
	fmt.Fprintf(w, "  API version:\t%s (minimum version %s)\n  Go version:\t%s\n  Git commit:\t%s\n  Built:\t%s\n  OS/Arch:\t%s/%s\n  Experimental:\t%s\n",
		d["ApiVersion"], d["MinAPIVersion"], d["GoVersion"], d["GitCommit"], built(d["BuildTime"]), d["Os"], d["Arch"], d["Experimental"])
}

func built(s string) string {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return strings.TrimSpace(s)
	}
	return t.Format(time.ANSIC)
}
