package option

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Body is the body of POST /containers/create.
type Body struct {
	container.CreateRequest
	// MacAddress is where engines before API 1.44 look for it.
	MacAddress string `json:",omitempty"`
}

func (c *Container) addMount(s string) error {
	m, err := ParseMount(s)
	if err != nil {
		return err
	}
	c.mounts = append(c.mounts, m)
	return nil
}

// Request makes the body of POST /containers/create, or says what was wrong.
func (c *Container) Request() (*Body, error) {
	if err := c.conflicts(); err != nil {
		return nil, err
	}
	conf, err := c.config()
	if err != nil {
		return nil, err
	}
	host, err := c.hostConfig()
	if err != nil {
		return nil, err
	}
	set, bound, err := Ports(c.publish, c.expose)
	if err != nil {
		return nil, err
	}
	conf.ExposedPorts, host.PortBindings = set, bound
	if conf.Healthcheck, err = c.health.config(); err != nil {
		return nil, err
	}
	nets, err := c.endpoints()
	if err != nil {
		return nil, err
	}
	host.NetworkMode = container.NetworkMode(c.networkMode())
	return &Body{CreateRequest: container.CreateRequest{
		Config: conf, HostConfig: host, NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: nets},
	}, MacAddress: c.mac}, nil
}

func (c *Container) conflicts() error {
	r := &c.resources
	switch {
	case r.swappiness != -1 && (r.swappiness < 0 || r.swappiness > 100):
		return fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", r.swappiness)
	case c.pid != "" && !container.PidMode(c.pid).Valid():
		return errors.New("--pid: invalid PID mode")
	case !container.UTSMode(c.uts).Valid():
		return errors.New("--uts: invalid UTS mode")
	case !container.UsernsMode(c.userns).Valid():
		return errors.New("--userns: invalid USER mode")
	case !container.CgroupnsMode(c.cgroupns).Valid():
		return errors.New("--cgroupns: invalid CGROUP mode")
	case !container.Isolation(c.isolation).IsDefault():
		return fmt.Errorf("invalid isolation %q: Linux containers have no other than \"default\"", c.isolation)
	case c.Remove && c.restart != "no" && c.restart != "":
		return errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	return nil
}

// config is the part of the request that says what runs.
func (c *Container) config() (*container.Config, error) {
	env, err := KeyFiles(c.envFiles, c.env, os.LookupEnv)
	if err != nil {
		return nil, err
	}
	labels, err := KeyFiles(c.labelFiles, c.labels, nil)
	if err != nil {
		return nil, err
	}
	conf := &container.Config{
		Hostname: c.hostname, Domainname: c.domainname, User: c.user, Tty: c.TTY, OpenStdin: c.Stdin,
		Env: env, Cmd: c.Command, Image: c.Image, WorkingDir: c.workdir, Labels: Pairs(labels), StopSignal: c.stopSignal,
	}
	_, conf.Volumes = volumes(c.volumes)
	if c.entrypoint != "" {
		conf.Entrypoint = []string{c.entrypoint}
	} else if c.flags.Changed("entrypoint") {
		conf.Entrypoint = []string{""} // takes the image's away
	}
	if c.flags.Changed("stop-timeout") {
		conf.StopTimeout = &c.stopTimeout
	}
	for _, s := range c.Attach {
		conf.AttachStdin = conf.AttachStdin || s == "stdin"
		conf.AttachStdout = conf.AttachStdout || s == "stdout"
		conf.AttachStderr = conf.AttachStderr || s == "stderr"
	}
	if len(c.Attach) == 0 {
		conf.AttachStdin, conf.AttachStdout, conf.AttachStderr = c.Stdin, true, true
	}
	conf.StdinOnce = conf.OpenStdin && conf.AttachStdin
	return conf, nil
}

// hostConfig is the part that says what it may use of this machine.
func (c *Container) hostConfig() (*container.HostConfig, error) {
	h := &container.HostConfig{
		ContainerIDFile: c.CIDFile, AutoRemove: c.Remove, VolumeDriver: c.volumeDriver, VolumesFrom: c.volumesFrom,
		Annotations: c.annotations, CgroupnsMode: container.CgroupnsMode(c.cgroupns),
		DNSOptions: list(c.dnsOptions), DNSSearch: list(c.dnsSearch), ExtraHosts: c.extraHosts, GroupAdd: c.groups,
		IpcMode: container.IpcMode(c.ipc), Links: c.links, OomScoreAdj: c.oomScoreAdj, PidMode: container.PidMode(c.pid),
		Privileged: c.privileged, PublishAllPorts: c.publishAll, ReadonlyRootfs: c.readOnly, Tmpfs: tmpfs(c.tmpfs),
		UTSMode: container.UTSMode(c.uts), UsernsMode: container.UsernsMode(c.userns), ShmSize: c.shmSize,
		Sysctls: c.sysctls, Runtime: c.runtime, Isolation: container.Isolation(c.isolation), Mounts: c.mounts,
		LogConfig: container.LogConfig{Type: c.logDriver, Config: Pairs(c.logOpts)}, DNS: addrs(c.dns),
	}
	h.CapAdd, h.CapDrop = capabilities(c.capAdd, c.capDrop)
	h.Binds, _ = volumes(c.volumes)
	if c.flags.Changed("init") {
		h.Init = &c.init
	}
	var err error
	if h.RestartPolicy, err = ParseRestart(c.restart); err != nil {
		return nil, err
	}
	if len(c.storageOpt) > 0 {
		if h.StorageOpt, err = storageOptions(c.storageOpt); err != nil {
			return nil, err
		}
	}
	if err := c.securityOptions(h); err != nil {
		return nil, err
	}
	h.Resources, err = c.limits()
	return h, err
}

// capabilities are in the kernel's words, sorted; what is both added and dropped
// is added.
func capabilities(add, drop []string) (added, dropped []string) {
	added = normalCapabilities(add)
	for _, name := range normalCapabilities(drop) {
		if !slices.Contains(added, name) {
			dropped = append(dropped, name)
		}
	}
	return added, dropped
}

func normalCapabilities(names []string) []string {
	var out []string
	for _, name := range names {
		name = strings.ToUpper(strings.TrimSpace(name))
		if name != "ALL" && !strings.HasPrefix(name, "CAP_") {
			name = "CAP_" + name
		}
		out = append(out, name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func sortedUlimits(list []*units.Ulimit) []*units.Ulimit {
	slices.SortFunc(list, func(a, b *units.Ulimit) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// list is never nil: an engine tells "none" from "not said" for these.
func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}

func addrs(list []string) []netip.Addr {
	out := make([]netip.Addr, 0, len(list))
	for _, s := range list {
		if a, err := netip.ParseAddr(s); err == nil {
			out = append(out, a)
		}
	}
	return out
}

func tmpfs(list []string) map[string]string {
	m := map[string]string{}
	for _, s := range list {
		path, opts, _ := strings.Cut(s, ":")
		m[path] = opts
	}
	return m
}

func storageOptions(list []string) (map[string]string, error) {
	m := map[string]string{}
	for _, s := range list {
		k, v, ok := strings.Cut(s, "=")
		if !ok {
			return nil, errors.New("invalid storage option")
		}
		m[k] = v
	}
	return m, nil
}

// ParseRestart reads --restart: NAME[:RETRIES].
func ParseRestart(s string) (container.RestartPolicy, error) {
	if s == "" {
		return container.RestartPolicy{}, nil
	}
	name, retries, has := strings.Cut(s, ":")
	p := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	if name == "" {
		return p, errors.New("invalid restart policy format: no policy provided before colon")
	}
	if has {
		n, err := strconv.Atoi(retries)
		if err != nil {
			return p, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	return p, nil
}

// securityOptions reads --security-opt. A seccomp profile is a file of ours, so
// its content is sent; systempaths is for the engine two lists of paths.
func (c *Container) securityOptions(h *container.HostConfig) error {
	for _, s := range c.security {
		key, value, ok := strings.Cut(s, "=")
		if !ok && key != "no-new-privileges" {
			// The form before 1.11, which engines still read.
			if key, value, ok = strings.Cut(s, ":"); !ok {
				//lint:ignore ST1005 docker says it so
				return fmt.Errorf("Invalid --security-opt: %q", s)
			}
		}
		switch {
		case key == "systempaths" && value == "unconfined":
			h.MaskedPaths, h.ReadonlyPaths = []string{}, []string{}
			continue
		case key == "seccomp" && value != "unconfined" && value != "builtin":
			raw, err := os.ReadFile(value)
			if err != nil {
				return fmt.Errorf("opening seccomp profile (%s) failed: %w", value, err)
			}
			var b bytes.Buffer
			if err := json.Compact(&b, raw); err != nil {
				return fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", value, err)
			}
			s = "seccomp=" + b.String()
		}
		h.SecurityOpt = append(h.SecurityOpt, s)
	}
	return nil
}

func (c *Container) limits() (container.Resources, error) {
	r := &c.resources
	out := container.Resources{
		CPUShares: r.cpuShares, Memory: r.memory, NanoCPUs: r.cpus, CgroupParent: c.cgroupParent,
		BlkioWeight: r.blkioWeight, BlkioWeightDevice: weights(r.weightDevices),
		BlkioDeviceReadBps: throttles(r.readBps), BlkioDeviceWriteBps: throttles(r.writeBps),
		BlkioDeviceReadIOps: throttles(r.readIOps), BlkioDeviceWriteIOps: throttles(r.writeIOps),
		CPUPeriod: r.cpuPeriod, CPUQuota: r.cpuQuota, CPURealtimePeriod: r.rtPeriod, CPURealtimeRuntime: r.rtRuntime,
		CpusetCpus: r.cpusetCPUs, CpusetMems: r.cpusetMems, DeviceCgroupRules: r.deviceRules, DeviceRequests: r.gpus,
		MemoryReservation: r.memoryReservation, MemorySwap: r.memorySwap, MemorySwappiness: &r.swappiness,
		OomKillDisable: &r.oomKillDisable, PidsLimit: &r.pids, Ulimits: sortedUlimits(r.ulimits), Devices: []container.DeviceMapping{},
	}
	var cdi []string
	for _, s := range r.devices {
		if isCDI(s) {
			cdi = append(cdi, s)
			continue
		}
		d, err := parseDevice(s)
		if err != nil {
			return out, err
		}
		out.Devices = append(out.Devices, d)
	}
	if len(cdi) > 0 {
		out.DeviceRequests = append(out.DeviceRequests, container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	return out, nil
}

// config is nil where the image's own check is to stay as it is.
func (h *health) config() (*container.HealthConfig, error) {
	set := h.cmd != "" || h.interval != 0 || h.timeout != 0 || h.startPeriod != 0 || h.startInterval != 0 || h.retries != 0
	switch {
	case h.none && set:
		return nil, errors.New("--no-healthcheck conflicts with --health-* options")
	case h.none:
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	case !set:
		return nil, nil
	case h.interval < 0:
		return nil, errors.New("--health-interval cannot be negative")
	case h.timeout < 0:
		return nil, errors.New("--health-timeout cannot be negative")
	case h.retries < 0:
		return nil, errors.New("--health-retries cannot be negative")
	case h.startPeriod < 0:
		return nil, errors.New("--health-start-period cannot be negative")
	case h.startInterval < 0:
		return nil, errors.New("--health-start-interval cannot be negative")
	}
	conf := &container.HealthConfig{
		Interval: h.interval, Timeout: h.timeout, StartPeriod: h.startPeriod, StartInterval: h.startInterval, Retries: h.retries,
	}
	if h.cmd != "" {
		conf.Test = []string{"CMD-SHELL", h.cmd}
	}
	return conf, nil
}
