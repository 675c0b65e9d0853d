package ociruntime

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/ociruntime/internal/seccomp"
)

// identity makes the child the user, with the rights and limits that
// process says. Both a container's first process and every later one pass it.
func (c *compiler) identity() error {
	c.keyring()
	if score := c.process.OOMScoreAdj; score != nil {
		c.aside("sets oom_score_adj to %d", *score)
	}
	for _, part := range []func() error{
		c.rlimits, c.scheduling, c.memoryPolicy, c.personality,
		c.workingDirectory, c.user,
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// keyring gives the container a session keyring of its own (keyrings(7)).
func (c *compiler) keyring() {
	if c.NoNewKeyring {
		return
	}
	const joinSession, setPerm = 1, 5
	// What a new one has, and the right of its user to search it: so an exec finds
	// it by its name, and is not left with the keys of its caller.
	const perm = 0x3f130000 | 0x00080000
	c.stage("join session keyring", "_ses."+c.ID)
	without := c.label()
	join := c.call("keyctl", named(joinSession, "JOIN_SESSION_KEYRING"), str("_ses."+c.ID)).orElse(without, unix.ENOSYS, unix.EPERM)
	if !c.inside {
		join.Out = c.reg()
		c.call("keyctl", named(setPerm, "SETPERM"), reg(join.Out), hex(perm)).fine(unix.EPERM)
	}
	c.mark(without)
}

var rlimitNumber = map[string]int{
	"RLIMIT_AS":         unix.RLIMIT_AS,
	"RLIMIT_CORE":       unix.RLIMIT_CORE,
	"RLIMIT_CPU":        unix.RLIMIT_CPU,
	"RLIMIT_DATA":       unix.RLIMIT_DATA,
	"RLIMIT_FSIZE":      unix.RLIMIT_FSIZE,
	"RLIMIT_LOCKS":      unix.RLIMIT_LOCKS,
	"RLIMIT_MEMLOCK":    unix.RLIMIT_MEMLOCK,
	"RLIMIT_MSGQUEUE":   unix.RLIMIT_MSGQUEUE,
	"RLIMIT_NICE":       unix.RLIMIT_NICE,
	"RLIMIT_NOFILE":     unix.RLIMIT_NOFILE,
	"RLIMIT_NPROC":      unix.RLIMIT_NPROC,
	"RLIMIT_RSS":        unix.RLIMIT_RSS,
	"RLIMIT_RTPRIO":     unix.RLIMIT_RTPRIO,
	"RLIMIT_RTTIME":     unix.RLIMIT_RTTIME,
	"RLIMIT_SIGPENDING": unix.RLIMIT_SIGPENDING,
	"RLIMIT_STACK":      unix.RLIMIT_STACK,
}

func (c *compiler) rlimits() error {
	if c.has(specs.UserNamespace) {
		for _, r := range c.process.Rlimits {
			c.aside("sets %s to soft %d hard %d", r.Type, r.Soft, r.Hard)
		}
		return nil
	}
	for _, r := range c.process.Rlimits {
		c.stage(fmt.Sprintf("set %s to", r.Type), fmt.Sprintf("soft %d hard %d", r.Soft, r.Hard))
		c.call("prlimit64", num(0), named(rlimitNumber[r.Type], r.Type), words(fmt.Sprintf("{%d %d}", r.Soft, r.Hard), r.Soft, r.Hard), null())
	}
	return nil
}

var schedulerPolicy = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther: unix.SCHED_NORMAL, specs.SchedFIFO: unix.SCHED_FIFO, specs.SchedRR: unix.SCHED_RR,
	specs.SchedBatch: unix.SCHED_BATCH, specs.SchedIdle: unix.SCHED_IDLE, specs.SchedDeadline: unix.SCHED_DEADLINE,
}

var schedulerFlag = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork: 0x01, specs.SchedFlagReclaim: 0x02, specs.SchedFlagDLOverrun: 0x04,
	specs.SchedFlagKeepPolicy: 0x08, specs.SchedFlagKeepParams: 0x10,
	specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
}

// setScheduler is the name of a step; errors are told by it.
const setScheduler = "set scheduler"

// scheduling sets scheduler, ioPriority.
func (c *compiler) scheduling() error {
	if s := c.process.Scheduler; s != nil {
		policy, ok := schedulerPolicy[s.Policy]
		if !ok {
			return fmt.Errorf("process.scheduler: policy %q is unknown", s.Policy)
		}
		var flags uint64
		for _, f := range s.Flags {
			v, ok := schedulerFlag[f]
			if !ok {
				return fmt.Errorf("process.scheduler: flag %q is unknown", f)
			}
			flags |= v
		}
		// struct sched_attr (sched_setattr(2)).
		le := binary.LittleEndian
		b := le.AppendUint32(nil, 48)
		b = le.AppendUint32(b, policy)
		b = le.AppendUint64(b, flags)
		b = le.AppendUint32(b, uint32(s.Nice))
		b = le.AppendUint32(b, uint32(s.Priority))
		for _, v := range []uint64{s.Runtime, s.Deadline, s.Period} {
			b = le.AppendUint64(b, v)
		}
		c.stage(setScheduler, string(s.Policy))
		c.call("sched_setattr", num(0), raw(b, string(s.Policy)), num(0))
	}
	if p := c.process.IOPriority; p != nil {
		class, ok := map[specs.IOPriorityClass]int{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}[p.Class]
		if !ok {
			return fmt.Errorf("process.ioPriority: class %q is unknown", p.Class)
		}
		const whoProcess, classShift = 1, 13
		c.stage("set I/O priority", string(p.Class))
		c.call("ioprio_set", num(whoProcess), num(0), num(class<<classShift|p.Priority))
	}
	return nil
}

// The names of the steps of securityLabels; errors are told by them.
const (
	setAppArmor = "set AppArmor profile"
	setSELinux  = "set SELinux label"
)

// securityLabels says what label the user's program gets at its execve, and
// until then the keyring that is made.
func (c *compiler) securityLabels() error {
	if p := c.process.ApparmorProfile; p != "" {
		c.stage(setAppArmor, p)
		c.writeProc("thread-self/attr/apparmor/exec", "exec "+p)
	}
	if l := c.process.SelinuxLabel; l != "" && !c.NoSELinux {
		c.stage(setSELinux, l)
		if !c.NoNewKeyring {
			c.writeProc("thread-self/attr/keycreate", l)
		}
		c.writeProc("thread-self/attr/exec", l)
	}
	return nil
}

func (c *compiler) personality() error {
	p := c.linux.Personality
	if p == nil {
		return nil
	}
	const linux32 = 8
	persona, ok := map[specs.LinuxPersonalityDomain]int{specs.PerLinux: 0, specs.PerLinux32: linux32}[p.Domain]
	if !ok || len(p.Flags) > 0 {
		return fmt.Errorf("linux.personality: domain %q with flags %v is not supported", p.Domain, p.Flags)
	}
	c.stage("set personality", string(p.Domain))
	c.call("personality", num(persona))
	return nil
}

// workingDirectory enters process.cwd, by no magic link of procfs
// (CVE-2024-21626). As root first, for the user may not be able to pass there;
// or as the user, where root may not (NFS): user tries again.
func (c *compiler) workingDirectory() error {
	c.enter(true)
	return nil
}

// enterCwd is the name of these steps; errors are told by it.
const enterCwd = "enter the working directory"

func (c *compiler) enter(again bool) {
	denied := c.label()
	c.stage(enterCwd, c.process.Cwd)
	h, size := how(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, unix.RESOLVE_NO_MAGICLINKS)
	s := c.call("openat2", cwd(), str(c.process.Cwd), h, size)
	s.Out = c.reg()
	enter := c.call("fchdir", reg(s.Out))
	if again {
		s.orElse(denied, unix.EACCES)
		enter.orElse(denied, unix.EACCES)
	}
	c.call("close", reg(s.Out))
	c.mark(denied)
}

// user drops to process.user and process.capabilities. CAP_SYS_ADMIN stays in
// the permitted set until execve where seccomp is still to be loaded with it;
// execve takes it: the bounding set does not have it.
func (c *compiler) user() error {
	sets, _ := capabilitySets(c.process.Capabilities)
	sets.clamp(c.Bounding)
	c.stage("drop capabilities", "")
	for n := range c.LastCap + 1 {
		if sets.bounding&(1<<n) == 0 && c.Bounding&(1<<n) != 0 {
			c.call("prctl", named(unix.PR_CAPBSET_DROP, "PR_CAPBSET_DROP"), named(n, capName(n)))
		}
	}
	u := c.process.User
	c.stage("become user", fmt.Sprintf("%d:%d", u.UID, u.GID))
	c.call("prctl", named(unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"), num(1))
	c.groups(u)
	c.call("setresgid", num(int(u.GID)), num(int(u.GID)), num(int(u.GID)))
	c.call("setresuid", num(int(u.UID)), num(int(u.UID)), num(int(u.UID)))
	c.call("prctl", named(unix.PR_SET_KEEPCAPS, "PR_SET_KEEPCAPS"), num(0))
	umask := uint32(0o022)
	if u.Umask != nil {
		umask = *u.Umask
	}
	c.call("umask", octal(umask))

	c.stage("set capabilities", "")
	keep := uint64(0)
	if c.linux.Seccomp != nil && !c.process.NoNewPrivileges {
		keep = 1 << unix.CAP_SYS_ADMIN & c.Bounding
	}
	c.capset(sets, keep)
	for n := range c.LastCap + 1 {
		if sets.ambient&(1<<n) != 0 {
			c.call("prctl", named(unix.PR_CAP_AMBIENT, "PR_CAP_AMBIENT"), named(unix.PR_CAP_AMBIENT_RAISE, "RAISE"), named(n, capName(n)), num(0), num(0))
		}
	}
	c.enterAgain()
	c.findTheProgram()
	if c.process.NoNewPrivileges {
		c.stage("forbid new privileges", "")
		c.call("prctl", named(unix.PR_SET_NO_NEW_PRIVS, "PR_SET_NO_NEW_PRIVS"), num(1), num(0), num(0), num(0))
	}
	c.showToMaker()
	return c.seccomp()
}

// showToMaker lets an ordinary user look at the process that he made (ptrace(2)), or
// he could not enter its container, where nobody else is yet. Each change of ids
// or capabilities takes that back.
func (c *compiler) showToMaker() {
	if c.Rootless && !c.inside && ownPids(c.linux) {
		c.call("prctl", named(unix.PR_SET_DUMPABLE, "PR_SET_DUMPABLE"), num(1))
	}
}

// enterAgain enters process.cwd as the user, where root was refused: it costs
// one call where it was not.
func (c *compiler) enterAgain() {
	if c.process.User.UID != 0 {
		c.enter(true)
	}
}

// Annotations of crun's (crun(1), "EXTENSIONS TO OCI"). By the first podman has the
// caller's supplementary groups kept (--group-add keep-groups).
const (
	keepGroups         = "run.oci.keep_original_groups"
	failUnknownSyscall = "run.oci.seccomp_fail_unknown_syscall"
	hooksStdout        = "run.oci.hooks.stdout" // files that what hooks print is added to
	hooksStderr        = "run.oci.hooks.stderr"
)

func (c *compiler) groups(u specs.User) {
	if _, keep := c.spec.Annotations[keepGroups]; keep {
		return
	}
	if c.Rootless && !c.HelpersMap && len(u.AdditionalGids) == 0 {
		return // setgroups is denied where an ordinary user wrote the map (user_namespaces(7))
	}
	var b []byte
	for _, g := range u.AdditionalGids {
		b = binary.LittleEndian.AppendUint32(b, g)
	}
	list := null()
	if len(b) > 0 {
		list = raw(b, fmt.Sprint(u.AdditionalGids))
	}
	c.call("setgroups", num(len(u.AdditionalGids)), list)
}

// capset is capset(2), with keep added to what the process itself has.
func (c *compiler) capset(s capSets, keep uint64) {
	const version3 = 0x20080522
	le := binary.LittleEndian
	head := le.AppendUint64(nil, version3)
	var data []byte
	for shift := 0; shift < 64; shift += 32 {
		data = le.AppendUint32(data, uint32((s.effective|keep)>>shift))
		data = le.AppendUint32(data, uint32((s.permitted|keep)>>shift))
		data = le.AppendUint32(data, uint32(s.inheritable>>shift))
	}
	text := fmt.Sprintf("{effective %s permitted %s inheritable %s}", capText(s.effective|keep), capText(s.permitted|keep), capText(s.inheritable))
	c.call("capset", raw(head, "v3"), raw(data, text))
}

func capText(set uint64) string {
	if bits.OnesCount64(set) > 4 {
		return fmt.Sprintf("0x%x", set)
	}
	var names []string
	for n := range 64 {
		if set&(1<<n) != 0 {
			names = append(names, strings.TrimPrefix(capName(n), "CAP_"))
		}
	}
	return "[" + strings.Join(names, " ") + "]"
}

// seccomp loads the filter. Of the calls that follow it only write, read and
// execve need to be allowed by it, and close_range where they are not.
func (c *compiler) seccomp() error {
	s := c.linux.Seccomp
	if s == nil {
		return nil
	}
	if err := checkListener(s); err != nil {
		return err
	}
	if _, strict := c.spec.Annotations[failUnknownSyscall]; strict {
		if err := seccomp.CheckNames(s); err != nil {
			return fmt.Errorf("linux.seccomp: %w, and the annotation %s is there", err, failUnknownSyscall)
		}
	}
	prog, flags, err := seccomp.Compile(s)
	if err != nil {
		return fmt.Errorf("linux.seccomp: %w", err)
	}
	if len(prog) == 0 {
		return nil
	}
	code := &blob{bytes: seccomp.Encode(prog)}
	fprog := &blob{bytes: binary.LittleEndian.AppendUint64(nil, uint64(len(prog))), relocs: []reloc{{8, code}}}
	fprog.bytes = append(fprog.bytes, make([]byte, 8)...)
	c.markCloseOnExec()
	c.stage("load seccomp filter", "")
	const setModeFilter = 1
	load := c.call("seccomp", named(setModeFilter, "SET_MODE_FILTER"), hex(flags), Arg{text: fmt.Sprintf("%d instructions", len(prog)), data: fprog})
	if flags&seccomp.NewListener != 0 {
		load.Out = c.reg()
		c.stage("have the agent told", s.ListenerPath)
		c.tellOf(statusListener, load.Out)
	}
	return nil
}

// markCloseOnExec makes the fifos, which are not the container's, end with
// execve.
func (c *compiler) markCloseOnExec() {
	const cloexec = 4 // CLOSE_RANGE_CLOEXEC, Linux 5.11
	all := uint64(1<<32 - 1)
	c.stage("close the rest at execve", "")
	c.call("close_range", num(c.plan.FirstFD), hex(all), named(cloexec, "CLOSE_RANGE_CLOEXEC"))
	for _, fd := range c.Holes {
		c.call("close_range", num(fd), num(fd), named(cloexec, "CLOSE_RANGE_CLOEXEC"))
	}
}

// launch says that all is ready, waits for the start and executes the program.
func (c *compiler) launch() error {
	if c.linux.Seccomp == nil {
		c.markCloseOnExec()
	}
	c.stage("wait for the start", "")
	c.tell(statusReady)
	c.await()
	c.execute()
	return nil
}

// execute is the name of the last step; errors are told by it.
const execute = "execute"

func (c *compiler) execute() {
	c.stage(execute, c.process.Args[0])
	env := environment(c.process, c.Home)
	c.call("execve", reg(c.program), strs(c.process.Args), strs(env))
}

// environment is process.env without doubles (the last one wins), with home as
// HOME where that is missing or empty.
func environment(p *specs.Process, home string) []string {
	var env []string
	seen := map[string]bool{}
	for _, e := range slices.Backward(p.Env) {
		key, value, _ := strings.Cut(e, "=")
		if seen[key] {
			continue
		}
		seen[key] = true
		if key == "HOME" && value == "" && home != "" {
			e = "HOME=" + home
		}
		env = append(env, e)
	}
	slices.Reverse(env)
	if !seen["HOME"] && home != "" {
		env = append(env, "HOME="+home)
	}
	return env
}
