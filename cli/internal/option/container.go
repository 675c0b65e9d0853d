package option

import (
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/spf13/pflag"
)

// Container is what create and run are told about the container to be made.
type Container struct {
	flags *pflag.FlagSet

	Name     string
	Platform string
	CIDFile  string
	Attach   []string
	Remove   bool
	Stdin    bool
	TTY      bool
	// Image and Command are the arguments after the options.
	Image   string
	Command []string

	env, envFiles, labels, labelFiles       []string
	entrypoint, user, workdir               string
	hostname, domainname, mac, stopSignal   string
	stopTimeout                             int
	init                                    bool
	health                                  health
	volumes, tmpfs, volumesFrom, storageOpt []string
	mounts                                  []mount.Mount
	volumeDriver                            string
	publish, expose                         []string
	publishAll                              bool
	networks                                []attachment
	aliases, links, linkLocal               []string
	ip, ip6                                 string
	extraHosts, dns, dnsOptions, dnsSearch  []string
	capAdd, capDrop, security, groups       []string
	privileged, readOnly                    bool
	ipc, pid, uts, userns, cgroupns         string
	cgroupParent, runtime, isolation        string
	restart, logDriver                      string
	logOpts                                 []string
	sysctls, annotations                    map[string]string
	shmSize                                 int64
	oomScoreAdj                             int
	resources                               resources
}

// resources are the limits.
type resources struct {
	memory, memorySwap, memoryReservation int64
	kernelMemory                          int64
	swappiness                            int64
	oomKillDisable                        bool
	cpus, cpuPeriod, cpuQuota, cpuShares  int64
	rtPeriod, rtRuntime                   int64
	cpusetCPUs, cpusetMems                string
	pids                                  int64
	blkioWeight                           uint16
	weightDevices, readBps, writeBps      []string
	readIOps, writeIOps                   []string
	devices, deviceRules                  []string
	gpus                                  []container.DeviceRequest
	ulimits                               []*units.Ulimit
}

type health struct {
	cmd                                           string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	none                                          bool
}

// NewContainer adds the options of create and run to f.
func NewContainer(f *pflag.FlagSet) *Container {
	c := &Container{flags: f}
	c.processFlags(f)
	c.storageFlags(f)
	c.networkFlags(f)
	c.securityFlags(f)
	c.resourceFlags(f)
	c.healthFlags(f)
	return c
}

func (c *Container) processFlags(f *pflag.FlagSet) {
	f.StringVar(&c.Name, "name", "", "Assign a name to the container")
	f.StringVar(&c.Platform, "platform", "", "Set platform if server is multi-platform capable")
	f.StringVar(&c.CIDFile, "cidfile", "", "Write the container ID to the file")
	f.VarP(NewList(&c.Attach, checkAttach), "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	f.BoolVar(&c.Remove, "rm", false, "Automatically remove the container and its\nassociated anonymous volumes when it exits")
	f.BoolVarP(&c.Stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVarP(&c.TTY, "tty", "t", false, "Allocate a pseudo-TTY")
	f.VarP(NewList(&c.env, CheckEnv), "env", "e", "Set environment variables")
	f.Var(NewList(&c.envFiles, nil), "env-file", "Read in a file of environment variables")
	f.VarP(NewList(&c.labels, CheckLabel), "label", "l", "Set meta data on a container")
	f.Var(NewList(&c.labelFiles, nil), "label-file", "Read in a line delimited file of labels")
	f.Var(NewMap(&c.annotations, nil), "annotation", "Add an annotation to the container (passed\nthrough to the OCI runtime)")
	f.StringVar(&c.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	f.StringVarP(&c.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	f.StringVarP(&c.workdir, "workdir", "w", "", "Working directory inside the container")
	f.StringVarP(&c.hostname, "hostname", "h", "", "Container host name")
	f.StringVar(&c.domainname, "domainname", "", "Container NIS domain name")
	f.StringVar(&c.stopSignal, "stop-signal", "", "Signal to stop the container")
	f.IntVar(&c.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	f.BoolVar(&c.init, "init", false, "Run an init inside the container that\nforwards signals and reaps processes")
	f.StringVar(&c.restart, "restart", "no", "Restart policy to apply when a container exits")
	f.StringVar(&c.logDriver, "log-driver", "", "Logging driver for the container")
	f.Var(NewList(&c.logOpts, nil), "log-opt", "Log driver options")
	f.StringVar(&c.runtime, "runtime", "", "Runtime to use for this container")
	f.StringVar(&c.isolation, "isolation", "", "Container isolation technology")
}

func (c *Container) storageFlags(f *pflag.FlagSet) {
	f.VarP(NewList(&c.volumes, nil), "volume", "v", "Bind mount a volume")
	f.Var(Func{"mount", c.addMount}, "mount", "Attach a filesystem mount to the container")
	f.Var(NewList(&c.tmpfs, nil), "tmpfs", "Mount a tmpfs directory")
	f.Var(NewList(&c.volumesFrom, nil), "volumes-from", "Mount volumes from the specified container(s)")
	f.StringVar(&c.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	f.Var(NewList(&c.storageOpt, nil), "storage-opt", "Storage driver options for the container")
	f.Var(NewBytes(&c.shmSize, false), "shm-size", "Size of /dev/shm")
	f.BoolVar(&c.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
}

func (c *Container) networkFlags(f *pflag.FlagSet) {
	f.VarP(NewList(&c.publish, nil), "publish", "p", "Publish a container's port(s) to the host")
	f.BoolVarP(&c.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	f.Var(NewList(&c.expose, nil), "expose", "Expose a port or a range of ports")
	f.Var(Func{"network", c.addNetwork}, "network", "Connect a container to a network")
	f.Var(Func{"network", c.addNetwork}, "net", "Connect a container to a network")
	f.Lookup("net").Hidden = true
	f.Var(NewList(&c.aliases, nil), "network-alias", "Add network-scoped alias for the container")
	f.Var(NewList(&c.aliases, nil), "net-alias", "Add network-scoped alias for the container")
	f.Lookup("net-alias").Hidden = true
	f.StringVar(&c.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	f.StringVar(&c.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	f.StringVar(&c.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	f.Var(NewList(&c.linkLocal, nil), "link-local-ip", "Container IPv4/IPv6 link-local addresses")
	f.Var(NewList(&c.links, nil), "link", "Add link to another container")
	f.Var(NewList(&c.extraHosts, checkHost), "add-host", "Add a custom host-to-IP mapping (host:ip)")
	f.Var(NewList(&c.dns, checkIP), "dns", "Set custom DNS servers")
	f.Var(NewList(&c.dnsOptions, nil), "dns-option", "Set DNS options")
	f.Var(NewList(&c.dnsOptions, nil), "dns-opt", "Set DNS options")
	f.Lookup("dns-opt").Hidden = true
	f.Var(NewList(&c.dnsSearch, checkDomain), "dns-search", "Set custom DNS search domains")
}

func (c *Container) securityFlags(f *pflag.FlagSet) {
	f.Var(NewList(&c.capAdd, nil), "cap-add", "Add Linux capabilities")
	f.Var(NewList(&c.capDrop, nil), "cap-drop", "Drop Linux capabilities")
	f.BoolVar(&c.privileged, "privileged", false, "Give extended privileges to this container")
	f.Var(NewList(&c.security, nil), "security-opt", "Security Options")
	f.Var(NewList(&c.groups, nil), "group-add", "Add additional groups to join")
	f.StringVar(&c.userns, "userns", "", "User namespace to use")
	f.StringVar(&c.ipc, "ipc", "", "IPC mode to use")
	f.StringVar(&c.pid, "pid", "", "PID namespace to use")
	f.StringVar(&c.uts, "uts", "", "UTS namespace to use")
	f.StringVar(&c.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)")
	f.StringVar(&c.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	f.Var(NewMap(&c.sysctls, checkSysctl), "sysctl", "Sysctl options")
}

func (c *Container) resourceFlags(f *pflag.FlagSet) {
	r := &c.resources
	f.VarP(NewBytes(&r.memory, false), "memory", "m", "Memory limit")
	f.Var(NewBytes(&r.memorySwap, true), "memory-swap", "Swap limit equal to memory plus swap: '-1' to\nenable unlimited swap")
	f.Var(NewBytes(&r.memoryReservation, false), "memory-reservation", "Memory soft limit")
	f.Var(NewBytes(&r.kernelMemory, false), "kernel-memory", "Kernel memory limit")
	f.Lookup("kernel-memory").Hidden = true
	f.Int64Var(&r.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	f.BoolVar(&r.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	f.IntVar(&c.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	f.Var(NewCPUs(&r.cpus), "cpus", "Number of CPUs")
	f.Int64VarP(&r.cpuShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Int64Var(&r.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&r.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&r.rtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	f.Int64Var(&r.rtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	f.StringVar(&r.cpusetCPUs, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&r.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.Int64Var(&r.pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.Var(NewUint16(&r.blkioWeight), "blkio-weight", "Block IO (relative weight), between 10 and\n1000, or 0 to disable (default 0)")
	f.Var(NewList(&r.weightDevices, checkWeight), "blkio-weight-device", "Block IO weight (relative device weight)")
	f.Var(NewList(&r.readBps, checkBps), "device-read-bps", "Limit read rate (bytes per second) from a device")
	f.Var(NewList(&r.writeBps, checkBps), "device-write-bps", "Limit write rate (bytes per second) to a device")
	f.Var(NewList(&r.readIOps, checkIOps), "device-read-iops", "Limit read rate (IO per second) from a device")
	f.Var(NewList(&r.writeIOps, checkIOps), "device-write-iops", "Limit write rate (IO per second) to a device")
	f.Var(NewList(&r.devices, nil), "device", "Add a host device to the container")
	f.Var(NewList(&r.deviceRules, checkDeviceRule), "device-cgroup-rule", "Add a rule to the cgroup allowed devices list")
	f.Var(Func{"gpu-request", c.addGPUs}, "gpus", "GPU devices to add to the container ('all' to\npass all GPUs)")
	f.Var(NewUlimits(&r.ulimits), "ulimit", "Ulimit options")
}

func (c *Container) healthFlags(f *pflag.FlagSet) {
	h := &c.health
	f.StringVar(&h.cmd, "health-cmd", "", "Command to run to check health")
	f.DurationVar(&h.interval, "health-interval", 0, "Time between running the check (ms|s|m|h)\n(default 0s)")
	f.IntVar(&h.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	f.DurationVar(&h.timeout, "health-timeout", 0, "Maximum time to allow one check to run\n(ms|s|m|h) (default 0s)")
	f.DurationVar(&h.startPeriod, "health-start-period", 0, "Start period for the container to initialize\nbefore starting health-retries countdown\n(ms|s|m|h) (default 0s)")
	f.DurationVar(&h.startInterval, "health-start-interval", 0, "Time between running the check during the\nstart period (ms|s|m|h) (default 0s)")
	f.BoolVar(&h.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}
