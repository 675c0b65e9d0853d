package engine

import (
	"fmt"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// validate checks what is no matter of the runtime's config, in Docker's words.
// The wishes that config.json carries are checked where they are translated.
func validate(cfg *container.Config, host *container.HostConfig) (warnings []string, err error) {
	warnings = []string{}
	if err := validateConfig(cfg); err != nil {
		return nil, err
	}
	if err := container.ValidateRestartPolicy(host.RestartPolicy); err != nil {
		return nil, invalid("%w", err)
	}
	if host.AutoRemove && !host.RestartPolicy.IsNone() {
		return nil, conflict("can't create 'AutoRemove' container with restart policy")
	}
	if !host.NetworkMode.IsPrivate() && len(host.PortBindings) > 0 && host.NetworkMode.IsContainer() {
		return nil, invalid("conflicting options: port publishing and the container type network mode")
	}
	if host.NetworkMode.IsHost() && len(host.PortBindings) > 0 {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	if host.NetworkMode.IsContainer() {
		if err := validateShared(cfg, host); err != nil {
			return nil, err
		}
	}
	if !host.IpcMode.Valid() {
		return nil, invalid("invalid IPC mode: %v", host.IpcMode)
	}
	if !host.PidMode.Valid() {
		return nil, invalid("invalid PID mode: %v", host.PidMode)
	}
	if !host.UTSMode.Valid() {
		return nil, invalid("invalid UTS mode: %v", host.UTSMode)
	}
	if !host.UsernsMode.Valid() {
		return nil, invalid("invalid USER mode: %v", host.UsernsMode)
	}
	if !host.CgroupnsMode.Valid() {
		return nil, invalid("invalid cgroup namespace mode: %v", host.CgroupnsMode)
	}
	if !host.Isolation.IsValid() {
		return nil, invalid("invalid isolation %q on linux", host.Isolation)
	}
	if len(host.DeviceRequests) > 0 {
		return nil, invalid("could not select device driver %q with capabilities: %v", host.DeviceRequests[0].Driver, host.DeviceRequests[0].Capabilities)
	}
	// In a network of one's own the endpoint has them; clients say them here too.
	if own := host.NetworkMode != "" && host.NetworkMode.IsUserDefined(); len(host.Links) > 0 && !own {
		return nil, invalid("legacy links are not supported: join the containers to one network")
	}
	for _, extra := range host.ExtraHosts {
		if name, addr, ok := strings.Cut(extra, ":"); !ok || name == "" || addr == "" {
			return nil, invalid("bad format for add-host: %q", extra)
		}
	}
	return warnings, nil
}

func validateConfig(cfg *container.Config) error {
	for _, kv := range cfg.Env {
		if name, _, _ := strings.Cut(kv, "="); name == "" {
			return invalid("invalid environment variable: %s", kv)
		}
	}
	if cfg.WorkingDir != "" && !strings.HasPrefix(cfg.WorkingDir, "/") {
		return invalid("the working directory '%s' is invalid, it needs to be an absolute path", cfg.WorkingDir)
	}
	if cfg.StopSignal != "" {
		if _, err := parseSignal(cfg.StopSignal); err != nil {
			return err
		}
	}
	if cfg.Healthcheck != nil {
		if err := validateHealth(cfg.Healthcheck); err != nil {
			return err
		}
	}
	for port := range cfg.ExposedPorts {
		if !port.IsValid() {
			return invalid("invalid port specification: %q", port)
		}
	}
	return nil
}

func validateHealth(h *container.HealthConfig) error {
	for _, d := range []struct {
		name string
		bad  bool
	}{
		{"Interval", h.Interval != 0 && h.Interval < container.MinimumDuration},
		{"Timeout", h.Timeout != 0 && h.Timeout < container.MinimumDuration},
		{"StartPeriod", h.StartPeriod != 0 && h.StartPeriod < container.MinimumDuration},
		{"StartInterval", h.StartInterval != 0 && h.StartInterval < container.MinimumDuration},
	} {
		if d.bad {
			return invalid("%s in Healthcheck cannot be less than %s", d.name, container.MinimumDuration)
		}
	}
	if h.Retries < 0 {
		return invalid("Retries in Healthcheck cannot be negative")
	}
	return nil
}

// validateShared checks what makes no sense in another container's network.
func validateShared(cfg *container.Config, host *container.HostConfig) error {
	const and = "conflicting options: %s and the container type network mode"
	for _, o := range []struct {
		what string
		set  bool
	}{
		{"hostname", cfg.Hostname != ""},
		{"dns", len(host.DNS) > 0},
		{"custom host-to-IP mapping", len(host.ExtraHosts) > 0},
		{"port publishing", len(host.PortBindings) > 0 || host.PublishAllPorts},
		{"port exposing", len(cfg.ExposedPorts) > 0},
	} {
		if o.set {
			return invalid(and, o.what)
		}
	}
	if host.NetworkMode.ConnectedContainer() == "" {
		return invalid("invalid container format container:<name|id>")
	}
	return nil
}

var _ = fmt.Sprint
