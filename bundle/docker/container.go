package docker

import (
	"maps"
	"slices"
	"strings"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bundle"
)

// Merge fills in what cfg leaves to the image: command, environment, user,
// working directory, ports, volumes, labels, stop signal, health check, shell.
func Merge(cfg *container.Config, img dockerspec.DockerOCIImageConfig) (err error) {
	cfg.Entrypoint, cfg.Cmd, err = bundle.Command(img.ImageConfig, cfg.Entrypoint, cfg.Cmd)
	if err != nil {
		return err
	}
	own := cfg.Env
	cfg.Env = slices.Clone(own)
	for _, kv := range img.Env {
		key, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(own, func(o string) bool { return o == key || strings.HasPrefix(o, key+"=") }) {
			cfg.Env = append(cfg.Env, kv)
		}
	}
	if cfg.User == "" {
		cfg.User = img.User
	}
	if cfg.WorkingDir == "" {
		cfg.WorkingDir = img.WorkingDir
	}
	if cfg.StopSignal == "" {
		cfg.StopSignal = img.StopSignal
	}
	if len(cfg.Shell) == 0 {
		cfg.Shell = img.Shell
	}
	cfg.Labels = under(cfg.Labels, img.Labels)
	cfg.Volumes = under(cfg.Volumes, img.Volumes)
	cfg.Healthcheck = mergeHealth(cfg.Healthcheck, img.Healthcheck)
	return mergePorts(cfg, img)
}

// under adds what m does not have.
func under[V any](m, base map[string]V) map[string]V {
	if len(base) == 0 {
		return m
	}
	all := maps.Clone(base)
	maps.Copy(all, m)
	return all
}

// mergeHealth takes the image's check, with the user's times.
func mergeHealth(user, image *container.HealthConfig) *container.HealthConfig {
	if user == nil || image == nil {
		if user != nil {
			return user
		}
		return image
	}
	h := *user
	if len(h.Test) == 0 {
		h.Test = image.Test
	}
	if h.Interval == 0 {
		h.Interval = image.Interval
	}
	if h.Timeout == 0 {
		h.Timeout = image.Timeout
	}
	if h.StartPeriod == 0 {
		h.StartPeriod = image.StartPeriod
	}
	if h.StartInterval == 0 {
		h.StartInterval = image.StartInterval
	}
	if h.Retries == 0 {
		h.Retries = image.Retries
	}
	return &h
}

// Defaults fills in what a daemon decides where neither user nor image does, so
// that an inspect tells it: namespaces' modes, paths, sizes.
func Defaults(host *container.HostConfig) {
	if host.IpcMode == "" {
		host.IpcMode = container.IPCModePrivate
	}
	if host.CgroupnsMode == "" {
		host.CgroupnsMode = container.CgroupnsModeHost
		if cgroup2() && !host.Privileged {
			host.CgroupnsMode = container.CgroupnsModePrivate
		}
	}
	if host.ShmSize == 0 {
		host.ShmSize = 64 << 20
	}
	if host.Memory > 0 && host.MemorySwap == 0 {
		host.MemorySwap = 2 * host.Memory
	}
	if host.Privileged {
		return
	}
	if host.MaskedPaths == nil {
		host.MaskedPaths = bundle.DefaultMaskedPaths()
	}
	if host.ReadonlyPaths == nil {
		host.ReadonlyPaths = bundle.DefaultReadonlyPaths()
	}
}

// cgroup2 says whether the machine has the unified hierarchy alone.
func cgroup2() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// Container translates what cfg and host say, after Merge and Defaults. It is
// the caller who knows, and sets, ID, Rootfs, CgroupsPath, Mounts, the files of
// /etc, ShmPath, Init, and the Path of every namespace that is not the
// container's own or the host's.
func Container(cfg *container.Config, host *container.HostConfig) (bundle.Container, error) {
	if err := validate(host); err != nil {
		return bundle.Container{}, err
	}
	res, err := resources(host.Resources)
	if err != nil {
		return bundle.Container{}, err
	}
	rules, err := deviceRules(host.DeviceCgroupRules)
	if err != nil {
		return bundle.Container{}, err
	}
	c := bundle.Container{
		ReadonlyRootfs: host.ReadonlyRootfs,
		Args:           slices.Concat(cfg.Entrypoint, cfg.Cmd),
		Env:            cfg.Env,
		Cwd:            cfg.WorkingDir,
		User:           cfg.User,
		Groups:         host.GroupAdd,
		Terminal:       cfg.Tty,
		Height:         host.ConsoleSize[0],
		Width:          host.ConsoleSize[1],
		Umask:          host.Umask,
		OOMScoreAdj:    host.OomScoreAdj,
		Rlimits:        rlimits(host.Ulimits),
		Hostname:       cfg.Hostname,
		Domainname:     cfg.Domainname,
		Network:        bundle.Namespace{Host: host.NetworkMode.IsHost()},
		PID:            bundle.Namespace{Host: host.PidMode.IsHost()},
		IPC:            bundle.Namespace{Host: host.IpcMode.IsHost()},
		UTS:            bundle.Namespace{Host: host.UTSMode.IsHost()},
		Cgroup:         bundle.Namespace{Host: !host.CgroupnsMode.IsPrivate()},
		Sysctl:         sysctls(host),
		Resources:      res,
		Devices:        devices(host.Devices),
		DeviceRules:    rules,
		Privileged:     host.Privileged,
		CapAdd:         host.CapAdd,
		CapDrop:        host.CapDrop,
		MaskedPaths:    host.MaskedPaths,
		ReadonlyPaths:  host.ReadonlyPaths,
		ShmSize:        host.ShmSize,
		Annotations:    host.Annotations,
	}
	switch {
	case host.IpcMode.IsNone():
		c.ShmSize = -1
	case host.IpcMode.IsHost():
		c.ShmPath = "/dev/shm"
	}
	return c, security(&c, host.SecurityOpt)
}

// sysctls adds what makes ports below 1024 and ping work without capabilities, in
// every network namespace that is not somebody else's.
func sysctls(host *container.HostConfig) map[string]string {
	if host.NetworkMode.IsHost() || host.NetworkMode.IsContainer() {
		return host.Sysctls
	}
	return under(host.Sysctls, map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "0",
		"net.ipv4.ping_group_range":           "0 2147483647",
	})
}

// security reads --security-opt. What is told of AppArmor and SELinux is the
// caller's to see to, who knows what the machine has.
func security(c *bundle.Container, opts []string) error {
	for _, o := range opts {
		key, value, ok := securityOption(o)
		switch {
		case o == "no-new-privileges":
			c.NoNewPrivileges = true
		case !ok:
			return refuse("invalid --security-opt 1: %q", o)
		case key == "no-new-privileges":
			if value != "true" && value != "false" {
				return refuse("invalid --security-opt: %q: want no-new-privileges=true or =false", o)
			}
			c.NoNewPrivileges = value == "true"
		case key == "seccomp":
			c.Seccomp = value
			if value == "builtin" {
				c.Seccomp = ""
			}
		case key != "apparmor" && key != "label":
			return refuse("invalid --security-opt 2: %q", o)
		}
	}
	return nil
}

// securityOption reads KEY=VALUE, or KEY:VALUE as of old.
func securityOption(o string) (key, value string, ok bool) {
	if key, value, ok = strings.Cut(o, "="); ok {
		return key, value, true
	}
	return strings.Cut(o, ":")
}

// SecurityValues are the values that --security-opt has of a key, in order.
func SecurityValues(opts []string, key string) []string {
	var values []string
	for _, o := range opts {
		if k, v, ok := securityOption(o); ok && k == key {
			values = append(values, v)
		}
	}
	return values
}
