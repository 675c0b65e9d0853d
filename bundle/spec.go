package bundle

import (
	"maps"
	"path"

	"github.com/opencontainers/runtime-spec/specs-go"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// version is the oldest runtime spec that has all that is written here, so that
// runtimes of that age take it: crun 1.8 refuses 1.3.
const version = "1.0.2"

// initPath is where a container finds the init that it asked for.
const initPath = "/sbin/docker-init"

// Spec is the config.json of c. Users and groups are looked up in root. What is
// wrong with a wish is an InvalidArgument that names it.
func Spec(c Container, root Root) (*specs.Spec, error) {
	process, err := Process(c, root)
	if err != nil {
		return nil, err
	}
	mounts, propagation, err := c.mounts()
	if err != nil {
		return nil, err
	}
	devices, rules, err := c.devices()
	if err != nil {
		return nil, err
	}
	resources := c.Resources
	resources.Devices = rules
	s := &specs.Spec{
		Version:     version,
		Process:     process,
		Root:        &specs.Root{Path: c.Rootfs, Readonly: c.ReadonlyRootfs},
		Mounts:      mounts,
		Annotations: c.Annotations,
		Linux: &specs.Linux{
			Sysctl:            c.sysctl(),
			Resources:         &resources,
			CgroupsPath:       c.CgroupsPath,
			Namespaces:        c.namespaces(),
			Devices:           devices,
			RootfsPropagation: propagation,
			MountLabel:        c.MountLabel,
		},
	}
	if !c.UTS.Host {
		s.Hostname = c.Hostname
	}
	if !c.Privileged {
		s.Linux.MaskedPaths = orDefault(c.MaskedPaths, DefaultMaskedPaths)
		s.Linux.ReadonlyPaths = orDefault(c.ReadonlyPaths, DefaultReadonlyPaths)
	}
	if s.Linux.Seccomp, err = c.seccomp(s); err != nil {
		return nil, err
	}
	return s, nil
}

// Process is the process of c: that of config.json, or with other Args, Env, Cwd,
// User and Terminal one that is started beside it.
func Process(c Container, root Root) (*specs.Process, error) {
	user, err := c.user(root)
	if err != nil {
		return nil, err
	}
	caps, err := c.capabilities(user.UID == 0)
	if err != nil {
		return nil, err
	}
	p, err := c.process()
	if err != nil {
		return nil, err
	}
	p.User, p.Capabilities = user, caps
	return p, nil
}

// sysctl carries the domain name too: spec.domainname is of 1.1, and newer than
// some of the runtimes that must understand this.
func (c Container) sysctl() map[string]string {
	sysctl := maps.Clone(c.Sysctl)
	if c.Domainname == "" || c.UTS.Host {
		return sysctl
	}
	if sysctl == nil {
		sysctl = map[string]string{}
	}
	if _, told := sysctl["kernel.domainname"]; !told {
		sysctl["kernel.domainname"] = c.Domainname
	}
	return sysctl
}

func orDefault(paths []string, defaults func() []string) []string {
	if paths == nil {
		return defaults()
	}
	return paths
}

func (c Container) process() (*specs.Process, error) {
	if len(c.Args) == 0 {
		return nil, refuse("no command specified")
	}
	cwd := c.Cwd
	if cwd == "" {
		cwd = "/"
	}
	if !path.IsAbs(cwd) {
		return nil, refuse("the working directory '%s' is invalid, it needs to be an absolute path", cwd)
	}
	args := c.Args
	if c.Init != "" {
		args = append([]string{initPath, "--"}, args...)
	}
	oom := c.OOMScoreAdj
	p := &specs.Process{
		Terminal:        c.Terminal,
		Args:            args,
		Env:             Env(c.baseEnv(), c.Env),
		Cwd:             cwd,
		Rlimits:         c.Rlimits,
		NoNewPrivileges: c.NoNewPrivileges,
		ApparmorProfile: c.AppArmorProfile,
		SelinuxLabel:    c.SelinuxLabel,
		OOMScoreAdj:     &oom,
	}
	if c.Terminal && c.Height != 0 && c.Width != 0 {
		p.ConsoleSize = &specs.Box{Height: c.Height, Width: c.Width}
	}
	return p, nil
}

// baseEnv is what every container has in its environment.
func (c Container) baseEnv() []string {
	env := []string{defaultPath}
	if c.Hostname != "" {
		env = append(env, "HOSTNAME="+c.Hostname)
	}
	if c.Terminal {
		env = append(env, "TERM=xterm")
	}
	return env
}

func (c Container) namespaces() []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	for _, n := range []struct {
		kind specs.LinuxNamespaceType
		of   Namespace
	}{
		{specs.NetworkNamespace, c.Network},
		{specs.UTSNamespace, c.UTS},
		{specs.PIDNamespace, c.PID},
		{specs.IPCNamespace, c.IPC},
		{specs.CgroupNamespace, c.Cgroup},
	} {
		if !n.of.Host {
			ns = append(ns, specs.LinuxNamespace{Type: n.kind, Path: n.of.Path})
		}
	}
	return ns
}
