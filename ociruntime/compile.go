package ociruntime

import (
	"encoding/binary"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Facts is what [Compile] must know about the machine and the bundle. With the
// same spec and facts the plan is the same.
type Facts struct {
	ID     string
	Bundle string // absolute; relative mount sources lie here
	Rootfs string // absolute

	// NotDir are the sources of bind mounts that are no directories.
	NotDir map[string]bool
	// Moved are mount destinations that lead over a dangling symlink in the
	// rootfs, and where it leads to.
	Moved map[string]string
	// Links are the sources with the option copy-symlink that are symlinks, and what
	// they say; Linked are their destinations that are the same link already.
	Links  map[string]string
	Linked map[string]bool
	// Copied is what lies below a tmpfs with tmpcopyup that the child fills itself.
	Copied map[string][]copied
	// Mode is the mode of mount destinations that are there in the rootfs: a
	// tmpfs that does not say its own takes it.
	Mode map[string]uint32

	CgroupJoin   []string      // files that the child writes itself to, cgroup v1
	CgroupMounts []CgroupMount // what a mount of type cgroup shows

	LastCap  int    // the highest capability of this kernel
	Bounding uint64 // capabilities that this process can give
	Home     string // $HOME where process.env does not have it

	NoSELinux    bool // SELinux is off: labels mean nothing
	ExtraFiles   int
	Holes        []int // descriptors among them that are not there
	NoPivot      bool
	Revealing    []string // mounts of the host that NoPivot must not leave below
	NoNewKeyring bool
	Rootless     bool // the parent is an ordinary user, and may not copy mounts
	HelpersMap   bool // newuidmap and newgidmap map the new user namespace
	Restricted   bool // the parent is in a user namespace, or an ordinary user, and may make no devices
}

// CgroupMount is one hierarchy, as a mount of type cgroup shows it.
type CgroupMount struct {
	Name  string   // its directory below /sys/fs/cgroup; "" for v2
	Path  string   // the container's group in it, on the host
	Links []string // further names of it: "cpu" for "cpu,cpuacct"
}

// Compile turns a spec into the plan that makes its container. It touches
// nothing.
func Compile(spec *specs.Spec, f Facts) (*Plan, error) {
	if err := validate(spec); err != nil {
		return nil, err
	}
	c := &compiler{builder: newBuilder(f.ExtraFiles), spec: spec, linux: spec.Linux, process: spec.Process, Facts: f}
	for _, part := range []func() error{
		c.begin,
		c.namespaces,
		c.mounts,
		c.devices,
		c.runtimeHooks,
		c.sysctls, // of network devices, too, which the parent brings
		c.enterRoot,
		c.hidePaths,
		c.names,
		c.securityLabels,
		c.closeFiles,
		c.endBySignals,
		c.identity,
		c.launch,
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	if c.Rootless {
		if err := c.openInside(); err != nil {
			return nil, err
		}
	}
	return c.finish(), nil
}

// compiler is the state of one compilation.
type compiler struct {
	*builder
	Facts
	spec    *specs.Spec
	linux   *specs.Linux
	process *specs.Process

	status, start Arg // the two fifos
	console       Arg // socket that takes the terminal's master
	root          Arg // the root filesystem, a mount
	proc          Reg // a procfs of the child's pid namespace
	peer          Reg // the terminal
	program       Reg // path of the user's program
	wait          *blob
	inside        bool // the container is there already
}

// The words that the child writes to the status fifo before its program runs.
// A report of a failed step has an address in their place.
const (
	statusNamespaces = 1 // mounts are made: hooks may run
	statusReady      = 2 // only the user's program is missing
	statusForked     = 3 // another process goes on; its id follows
	statusListener   = 4 // the seccomp filter notifies; its descriptor follows
	statusTree       = 5 // the ids of a mount are to be mapped; its descriptor follows
)

// begin opens what lives as long as the table.
func (c *compiler) begin() error {
	c.status = c.file(File{Name: "status fifo"})
	c.start = c.file(File{Name: "start fifo"})
	if c.process.Terminal {
		c.console = c.file(File{Name: "console socket"})
	}
	c.stage("hide from other processes", "")
	c.call("prctl", named(unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), num(0))
	c.call("prctl", named(unix.PR_SET_NAME, "PR_SET_NAME"), str("gantry-init"))
	return nil
}

// session begins a session, as the process that goes on.
func (c *compiler) session() {
	c.stage("begin a session", "")
	c.call("setsid").fine(unix.EPERM)
}

// cloneFlag is the flag of each kind of namespace.
var cloneFlag = map[specs.LinuxNamespaceType]uint64{
	specs.PIDNamespace:     unix.CLONE_NEWPID,
	specs.NetworkNamespace: unix.CLONE_NEWNET,
	specs.MountNamespace:   unix.CLONE_NEWNS,
	specs.IPCNamespace:     unix.CLONE_NEWIPC,
	specs.UTSNamespace:     unix.CLONE_NEWUTS,
	specs.UserNamespace:    unix.CLONE_NEWUSER,
	specs.CgroupNamespace:  unix.CLONE_NEWCGROUP,
	specs.TimeNamespace:    unix.CLONE_NEWTIME,
}

// namespaces joins cgroups and namespaces. The namespace of cgroups is made
// after its groups are joined, for they become its root.
func (c *compiler) namespaces() error {
	c.joinCgroups()
	for _, ns := range c.linux.Namespaces {
		switch {
		case c.joins(ns):
		case ns.Type == specs.CgroupNamespace, ns.Type == specs.TimeNamespace:
		default:
			c.plan.Clone |= cloneFlag[ns.Type]
		}
	}
	if err := c.joinNamespaces(); err != nil {
		return err
	}
	if c.plan.Clone&unix.CLONE_NEWUSER != 0 && firstID(c.linux.UIDMappings) != 0 {
		c.plan.ambient = allCaps(c.LastCap)
	}
	c.session()
	for _, ns := range c.linux.Namespaces {
		switch {
		case ns.Path != "":
		case ns.Type == specs.CgroupNamespace:
			c.stage("make cgroup namespace", "")
			c.call("unshare", named(unix.CLONE_NEWCGROUP, "CLONE_NEWCGROUP"))
		case ns.Type == specs.TimeNamespace:
			c.timeNamespace()
		case ns.Type == specs.NetworkNamespace:
			c.loopback()
		}
	}
	return nil
}

// loopback brings lo up in a new network namespace (netdevice(7)), as all
// runtimes do.
func (c *compiler) loopback() {
	const flagsAt = unix.IFNAMSIZ
	request := make([]byte, 40) // struct ifreq
	copy(request, "lo")
	binary.LittleEndian.PutUint16(request[flagsAt:], unix.IFF_UP)
	c.stage("bring up", "lo")
	s := c.open("socket", named(unix.AF_INET, "AF_INET"), named(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, "SOCK_DGRAM|SOCK_CLOEXEC"), num(0))
	c.call("ioctl", reg(s), named(unix.SIOCSIFFLAGS, "SIOCSIFFLAGS"), raw(request, "{lo UP}"))
	c.call("close", reg(s))
}

// joinCgroups joins the container's groups, before a namespace hides the host's
// view of the process from the kernel's checks. The processors that our caller
// may run on are not the container's: since Linux 6.2 joining a group keeps them.
func (c *compiler) joinCgroups() {
	for _, p := range c.CgroupJoin {
		fd := c.file(File{Name: "cgroup", Call: "open", Path: p, Flags: unix.O_WRONLY})
		c.stage("join cgroup", path.Dir(p))
		c.call("write", fd, str("0"), num(1))
	}
	if !c.inside || c.affinityOf() == nil {
		c.stage("run on every processor that the cgroup has", "")
		all := slices.Repeat([]byte{0xff}, mostCPUs/8)
		c.call("sched_setaffinity", num(0), num(len(all)), raw(all, "all")).fine(unix.EPERM, unix.EINVAL)
	}
}

// mostCPUs is how many processors a kernel can be built for (CONFIG_NR_CPUS).
const mostCPUs = 8192

// joinNamespaces joins those that are given by path, the user namespace last: it
// has no rights over the others, which root has. An ordinary user has them only
// by the user namespace, and joins it first. What is to be new
// is made in a joined user namespace, as its owner; and of a pid namespace that
// is joined only children are part. Both take one more fork.
func (c *compiler) joinNamespaces() error {
	var joined uint64
	byPath := slices.DeleteFunc(slices.Clone(c.linux.Namespaces), func(n specs.LinuxNamespace) bool { return !c.joins(n) })
	slices.SortStableFunc(byPath, func(a, b specs.LinuxNamespace) int {
		user := func(n specs.LinuxNamespace) int {
			switch {
			case n.Type != specs.UserNamespace:
				return 0
			case c.Rootless:
				return -1
			}
			return 1
		}
		return user(a) - user(b)
	})
	for _, ns := range byPath {
		flag := cloneFlag[ns.Type]
		joined |= flag
		fd := c.namespaceFile(ns)
		c.stage("join "+string(ns.Type)+" namespace", ns.Path)
		c.call("setns", fd, cloneArg(flag))
	}
	var made uint64
	if joined&unix.CLONE_NEWUSER != 0 {
		c.becomeRoot()
		c.showToMaker()
		c.plan.Clone, made = 0, c.plan.Clone
	}
	if joined&unix.CLONE_NEWPID != 0 || made != 0 {
		c.fork(made)
	}
	return nil
}

// becomeRoot is the root of a user namespace that was joined.
func (c *compiler) becomeRoot() {
	c.stage("become root of the user namespace", "")
	gid, uid := firstID(c.linux.GIDMappings), firstID(c.linux.UIDMappings)
	c.call("setresgid", num(gid), num(gid), num(gid))
	c.call("setresuid", num(uid), num(uid), num(uid))
}

// fork goes on in a new process, born in the namespaces flags. It is a child of
// our parent (CLONE_PARENT), which we tell its id, and end.
func (c *compiler) fork(flags uint64) {
	c.stage("fork", "")
	newborn := c.label()
	f := cloneArg(flags | unix.CLONE_PARENT)
	f.num |= uint64(unix.SIGCHLD)
	f.text += "|SIGCHLD"
	s := c.call("clone", f, num(0), num(0), num(0), num(0)).orElse(newborn, 0)
	s.Min, s.Out = 1, c.reg()
	c.tellOf(statusForked, s.Out)
	c.call("exit_group", num(0))
	c.mark(newborn)
}

// cloneArg is flags of clone(2), by name.
func cloneArg(flags uint64) Arg {
	return named(flags, "CLONE_"+strings.Join(flagNames(flags, cloneFlags), "|CLONE_"))
}

// timeNamespace makes the time namespace that the next execve enters (Linux
// 6.3) and sets its clocks.
func (c *compiler) timeNamespace() {
	c.stage("make time namespace", "")
	c.call("unshare", named(unix.CLONE_NEWTIME, "CLONE_NEWTIME"))
	var lines []string
	for clock, o := range c.linux.TimeOffsets {
		lines = append(lines, fmt.Sprintf("%s %d %d\n", clock, o.Secs, o.Nanosecs))
	}
	slices.Sort(lines)
	if text := strings.Join(lines, ""); text != "" {
		c.stage("set time offsets", "/proc/self/timens_offsets")
		fd := c.open("openat", cwd(), str("/proc/self/timens_offsets"), named(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"))
		c.call("write", reg(fd), str(text), num(len(text)))
	}
}

// has says whether the container has a namespace of kind t that is not the
// caller's own.
func (c *compiler) has(t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(c.linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}

// runtimeHooks lets the parent run the hooks that want the mounts made and the
// host's root still there (runtime-spec, "Lifecycle": before pivot_root), and
// bring the network devices that they may look for.
func (c *compiler) runtimeHooks() error {
	c.tellNetDevices()
	if r := c.linux.IntelRdt; r != nil {
		c.aside("joins class of service %q with %q", groupsOf("", c.ID, r).Class, schemata(r))
	}
	if !waitsForParent(c.spec) {
		return nil
	}
	c.stage("wait for the parent", "")
	c.tell(statusNamespaces)
	c.await()
	return nil
}

// tell writes a word to the status fifo.
func (c *compiler) tell(word uint64) {
	c.call("write", c.status, words(fmt.Sprintf("{%d 0}", word), word, 0), num(16))
}

// tellOf writes a word and a register to the status fifo.
func (c *compiler) tellOf(word uint64, r Reg) {
	told := words(fmt.Sprintf("{%d $%d}", word, r), word, 0)
	const second = 8
	c.plan.homes[r] = home{told.data, second}
	c.call("write", c.status, told, num(16))
}

// await waits for a byte on the start fifo, which the child itself holds open.
func (c *compiler) await() {
	if c.wait == nil {
		c.wait = &blob{bytes: make([]byte, 8)}
	}
	c.call("read", c.start, Arg{text: "byte", data: c.wait}, num(1)).Min = 1
}

// closeFiles closes what only the mounts needed, long before the user's program
// runs: the working directory must not be found through it (CVE-2024-21626).
func (c *compiler) closeFiles() error {
	keep := 2
	if c.process.Terminal {
		keep = 3
	}
	c.stage("close what the mounts needed", "")
	first := c.plan.FirstFD + keep
	all := uint64(1<<32 - 1)
	c.call("close_range", num(first), hex(all), num(0))
	return nil
}

// endBySignals lets the signals that ask a program to end do so while it waits for
// its start: the first process of a pid namespace has to have a handler for them
// (pid_namespaces(7)). execve takes it away.
func (c *compiler) endBySignals() error {
	handler, err := endedAddr()
	if err != nil {
		return err
	}
	const restorer, maskSize = 0x04000000, 8 // SA_RESTORER, of which the kernel wants to hear
	c.stage("end by signals until the start", "")
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGINT, unix.SIGTERM} {
		action := words("{exit_group 128+n}", handler, restorer, 0, 0)
		c.call("rt_sigaction", named(int(sig), unix.SignalName(sig)), action, null(), num(maskSize))
	}
	return nil
}

// names sets host and domain name.
func (c *compiler) names() error {
	if h := c.spec.Hostname; h != "" {
		c.stage("set hostname", h)
		c.call("sethostname", str(h), num(len(h)))
	}
	if d := c.spec.Domainname; d != "" {
		c.stage("set domainname", d)
		c.call("setdomainname", str(d), num(len(d)))
	}
	return nil
}
