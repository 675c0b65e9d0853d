package cli

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/format"
	"github.com/gantryd/gantry/internal/version"
)

// systemInfo is what templates and JSON see: the engine's answer and ours.
type systemInfo struct {
	*system.Info
	ServerErrors []string `json:",omitempty"`
	ClientInfo   clientInfo
}

// clientInfo is what the command line knows of itself.
type clientInfo struct {
	Debug             bool
	Version           string
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	Context           string
	Plugins           []string
	Warnings          []string
}

func infoCommand(c *cli) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use:   "info [OPTIONS]",
		Short: "Display system-wide information",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return c.info(cmd.Context(), text) },
	}
	formatFlag(cmd, &text)
	aliases(cmd, "system info", "info")
	return cmd
}

// info prints the client's part even where the engine does not answer.
func (c *cli) info(ctx context.Context, text string) error {
	info := systemInfo{ClientInfo: clientInfo{
		Debug: c.global.debug, Version: version.Version, DefaultAPIVersion: client.MaxVersion, GitCommit: version.Commit,
		GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, Context: c.contextName(), Plugins: []string{},
	}}
	cl, err := c.engine()
	if err != nil {
		return err
	}
	var server system.Info
	serverErr := cl.Get(ctx, "/info", nil, &server)
	if serverErr == nil {
		info.Info = &server
	} else {
		info.ServerErrors = []string{serverErr.Error()}
	}
	if text == "" {
		c.printInfo(&info)
		if serverErr != nil {
			return &statusError{code: 1} // it is said already
		}
		return nil
	}
	if text == "json" {
		text = "{{json .}}"
	}
	t, err := format.Parse(text)
	if err != nil {
		return &statusError{code: exitUsage, err: err}
	}
	if err := t.Execute(c.std.Out, info); err != nil {
		return err
	}
	fmt.Fprintln(c.std.Out)
	return serverErr
}

func (c *cli) printInfo(info *systemInfo) {
	w := c.std.Out
	cl := info.ClientInfo
	fmt.Fprintf(w, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %v\n\nServer:\n", cl.Version, cl.Context, cl.Debug)
	for _, e := range info.ServerErrors {
		fmt.Fprintln(c.std.Err, e)
	}
	if info.Info == nil {
		return
	}
	printServer(w, info.Info)
	for _, warning := range info.Warnings {
		fmt.Fprintln(c.std.Err, warning)
	}
}

func printServer(w io.Writer, s *system.Info) {
	line := func(name string, value any) { fmt.Fprintf(w, " %s: %v\n", name, value) }
	some := func(name, value string) {
		if value != "" {
			line(name, value)
		}
	}
	line("Containers", s.Containers)
	line(" Running", s.ContainersRunning)
	line(" Paused", s.ContainersPaused)
	line(" Stopped", s.ContainersStopped)
	line("Images", s.Images)
	some("Server Version", s.ServerVersion)
	some("Storage Driver", s.Driver)
	for _, kv := range s.DriverStatus {
		line(" "+kv[0], kv[1])
	}
	some("Logging Driver", s.LoggingDriver)
	some("Cgroup Driver", s.CgroupDriver)
	some("Cgroup Version", s.CgroupVersion)
	printPlugins(w, s)
	line("Swarm", s.Swarm.LocalNodeState)
	if s.Swarm.LocalNodeState == swarm.LocalNodeStateActive {
		line(" NodeID", s.Swarm.NodeID)
		line(" Is Manager", s.Swarm.ControlAvailable)
	}
	if len(s.Runtimes) > 0 {
		line("Runtimes", strings.Join(sortedKeys(s.Runtimes), " "))
		line("Default Runtime", s.DefaultRuntime)
	}
	if s.OSType == "linux" {
		line("Init Binary", s.InitBinary)
		line("containerd version", s.ContainerdCommit.ID)
		line("runc version", s.RuncCommit.ID)
		line("init version", s.InitCommit.ID)
		printSecurity(w, s.SecurityOptions)
	}
	some("Kernel Version", s.KernelVersion)
	some("Operating System", s.OperatingSystem)
	some("OSType", s.OSType)
	some("Architecture", s.Architecture)
	line("CPUs", s.NCPU)
	line("Total Memory", units.BytesSize(float64(s.MemTotal)))
	some("Name", s.Name)
	some("ID", s.ID)
	line("Docker Root Dir", s.DockerRootDir)
	line("Debug Mode", s.Debug)
	if s.Debug {
		line(" File Descriptors", s.NFd)
		line(" Goroutines", s.NGoroutines)
		line(" System Time", s.SystemTime)
		line(" EventsListeners", s.NEventsListener)
	}
	some("HTTP Proxy", s.HTTPProxy)
	some("HTTPS Proxy", s.HTTPSProxy)
	some("No Proxy", s.NoProxy)
	list(w, "Labels", s.Labels)
	line("Experimental", s.ExperimentalBuild)
	printRegistries(w, s)
	line("Live Restore Enabled", s.LiveRestoreEnabled)
	some("Product License", s.ProductLicense)
	if len(s.DefaultAddressPools) > 0 {
		fmt.Fprintln(w, " Default Address Pools:")
		for _, p := range s.DefaultAddressPools {
			fmt.Fprintf(w, "   Base: %s, Size: %d\n", p.Base, p.Size)
		}
	}
	if s.FirewallBackend != nil {
		line("Firewall Backend", s.FirewallBackend.Driver)
		for _, kv := range s.FirewallBackend.Info {
			line(" "+kv[0], kv[1])
		}
	}
	fmt.Fprintln(w)
}

// list prints a heading and its lines, if there are any.
func list(w io.Writer, name string, lines []string) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintf(w, " %s:\n", name)
	for _, l := range lines {
		fmt.Fprintf(w, "  %s\n", l)
	}
}

func printPlugins(w io.Writer, s *system.Info) {
	fmt.Fprintf(w, " Plugins:\n  Volume: %s\n  Network: %s\n", strings.Join(s.Plugins.Volume, " "), strings.Join(s.Plugins.Network, " "))
	if len(s.Plugins.Authorization) > 0 {
		fmt.Fprintf(w, "  Authorization: %s\n", strings.Join(s.Plugins.Authorization, " "))
	}
	fmt.Fprintf(w, "  Log: %s\n", strings.Join(s.Plugins.Log, " "))
	list(w, "CDI spec directories", s.CDISpecDirs)
}

// printSecurity reads "name=seccomp,profile=default".
func printSecurity(w io.Writer, options []string) {
	if len(options) == 0 {
		return
	}
	fmt.Fprintln(w, " Security Options:")
	for _, o := range options {
		for field := range strings.SplitSeq(o, ",") {
			k, v, _ := strings.Cut(field, "=")
			switch k {
			case "name":
				fmt.Fprintf(w, "  %s\n", v)
			case "profile":
				fmt.Fprintf(w, "   Profile: %s\n", v)
			}
		}
	}
}

func printRegistries(w io.Writer, s *system.Info) {
	r := s.RegistryConfig
	if r == nil {
		return
	}
	var insecure []string
	for _, name := range sortedKeys(r.IndexConfigs) {
		if !r.IndexConfigs[name].Secure {
			insecure = append(insecure, name)
		}
	}
	for _, cidr := range r.InsecureRegistryCIDRs {
		insecure = append(insecure, cidr.String())
	}
	list(w, "Insecure Registries", insecure)
	list(w, "Registry Mirrors", slices.Clone(r.Mirrors))
}
