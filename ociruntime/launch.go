package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
)

// launch is one plan on its way to be a process.
type launch struct {
	plan   *Plan
	stdio  [3]*os.File // nil is /dev/null
	extra  []*os.File
	given  map[string]int // descriptors that the plan's nameless files stand for
	cgroup int            // cgroup v2 directory to be born in, or -1
	uids   []specs.LinuxIDMapping
	gids   []specs.LinuxIDMapping
	reap   func(pid int) (syscall.WaitStatus, error)
	trace  func(part, name, call string, start time.Time)
	dir    string // for what lives no longer than the launch
}

// child is a process that goes through a plan.
type child struct {
	pid   int
	pidfd *os.File
	plan  *Plan
	forks bool                     // the plan does, and we do not follow yet
	heard func(listener int) error // has the seccomp agent told
	goOn  func() error             // lets the child go on
	reap  func(pid int) (syscall.WaitStatus, error)
}

// run opens what the plan wants, clones, and closes it again. The child is on
// its way through the table when run returns.
func (l *launch) run() (c *child, err error) {
	var opened []int
	defer func() {
		for _, fd := range opened {
			unix.Close(fd)
		}
	}()
	files := make([]uintptr, 0, l.plan.FirstFD+len(l.plan.Files))
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	opened = append(opened, null)
	for _, f := range l.stdio {
		if f == nil {
			files = append(files, uintptr(null))
		} else {
			files = append(files, f.Fd())
		}
	}
	for _, f := range l.extra {
		if f == nil {
			files = append(files, uintptr(null)) // closed at execve: nothing of the plan's may be there
		} else {
			files = append(files, f.Fd())
		}
	}
	for _, f := range l.plan.Files {
		fd, ok := l.given[f.Name]
		if f.Call != "" || !ok {
			start := time.Now()
			if fd, err = f.open(l.dir); err != nil {
				return nil, err
			}
			opened = append(opened, fd)
			l.note(f.Name, f.Call, start)
		}
		files = append(files, uintptr(fd))
	}
	start := time.Now()
	data, err := l.plan.assemble(l.plan.FirstFD)
	if err != nil {
		return nil, err
	}
	image, err := imageFile(data)
	if err != nil {
		return nil, err
	}
	opened = append(opened, image)
	l.note("assemble the plan", "memfd_create", start)
	// The last descriptor is the program itself; the plan closes it with the rest.
	return l.clone(append(files, uintptr(image)))
}

// giveStreams makes the standard streams the user's, who can then open them
// again as /dev/stdout. Devices stay who they are of; what is refused stays, too.
func (l *launch) giveStreams(u specs.User) {
	uid, gid := hostID(u.UID, l.uids), hostID(u.GID, l.gids)
	for _, f := range l.stdio {
		var st unix.Stat_t
		if f == nil || unix.Fstat(int(f.Fd()), &st) != nil || st.Uid == uid && st.Gid == gid {
			continue
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFREG:
			_ = unix.Fchown(int(f.Fd()), int(uid), int(gid))
		}
	}
}

// bornIn makes the child be born in the v2 part of group, if it has one. Another
// group is joined by the plan.
func (l *launch) bornIn(group *cgroup.Group) (done func(), err error) {
	l.cgroup = -1
	dir, ok := group.Unified()
	if !ok {
		return func() {}, nil
	}
	l.cgroup, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", dir, err)
	}
	return func() { unix.Close(l.cgroup) }, nil
}

func (l *launch) note(name, call string, start time.Time) {
	if l.trace != nil {
		l.trace("runtime", name, call, start)
	}
}

// clone starts the last of files, which become its descriptors in that order.
func (l *launch) clone(files []uintptr) (*child, error) {
	start := time.Now()
	pidfd := -1
	attr := &syscall.ProcAttr{
		Files: files,
		Sys:   &syscall.SysProcAttr{Cloneflags: uintptr(l.plan.Clone), PidFD: &pidfd},
	}
	if l.cgroup >= 0 {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, l.cgroup
	}
	if l.plan.Clone&unix.CLONE_NEWUSER != 0 {
		attr.Sys.UidMappings, attr.Sys.GidMappings = sysMap(l.uids), sysMap(l.gids)
		attr.Sys.GidMappingsEnableSetgroups = os.Geteuid() == 0
		// execve takes every capability from an id that the new namespace has not.
		uid, gid := firstID(l.uids), firstID(l.gids)
		attr.Sys.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: true}
		attr.Sys.AmbientCaps = l.plan.ambient
	}
	path := fmt.Sprintf("/proc/self/fd/%d", len(files)-1)
	back, err := runOn(l.plan.cpuMask)
	if err != nil {
		return nil, fmt.Errorf("run on the processors %s: %w", l.plan.CPUs, err)
	}
	pid, err := syscall.ForkExec(path, []string{"gantry-init"}, attr)
	back()
	if err != nil {
		return nil, fmt.Errorf("clone into new namespaces: %w", err)
	}
	forks := slices.ContainsFunc(l.plan.Steps, func(s *Step) bool { return s.Call == "clone" })
	c := &child{pid: pid, plan: l.plan, forks: forks, reap: l.reap}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			return nil, fmt.Errorf("open pidfd of %d: %w", pid, err)
		}
	}
	c.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	l.note("clone", "clone3", start)
	return c, nil
}

// runOn moves this goroutine to some processors, where its child begins, until back.
func runOn(mask []byte) (back func(), err error) {
	if mask == nil {
		return func() {}, nil
	}
	runtime.LockOSThread()
	var old unix.CPUSet
	if err = unix.SchedGetaffinity(0, &old); err == nil {
		_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(mask)), uintptr(unsafe.Pointer(&mask[0])))
		if errno != 0 {
			err = errno
		}
	}
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return func() {
		// A thread that does not find back ends with its goroutine.
		if unix.SchedSetaffinity(0, &old) == nil {
			runtime.UnlockOSThread()
		}
	}, nil
}

func sysMap(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	list := make([]syscall.SysProcIDMap, 0, len(m))
	for _, e := range m {
		list = append(list, syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)})
	}
	return list
}

// open opens f for the child. What it needs meanwhile is in dir.
func (f File) open(dir string) (fd int, err error) {
	switch f.Call {
	case "open":
		if fd, err = unix.Open(f.Path, f.Flags|unix.O_CLOEXEC, 0); err != nil {
			return -1, fmt.Errorf("open %s %s: %w", f.Name, f.Path, err)
		}
		return fd, f.verify(fd)
	case "open_tree":
		if err := f.checkLocked(); err != nil {
			return -1, err
		}
		if fd, err = unix.OpenTree(unix.AT_FDCWD, f.Path, uint(f.Flags)); err != nil {
			return -1, fmt.Errorf("%s: open_tree %s: %w", f.Name, f.Path, err)
		}
		return fd, f.change(fd)
	case "mknod":
		return f.makeNode(dir)
	case "fsmount":
		if fd, err = f.CopyUp.mount(); err != nil {
			return -1, fmt.Errorf("%s: %w", f.Name, err)
		}
		return fd, f.change(fd)
	case later:
		return unix.Open(os.DevNull, unix.O_PATH|unix.O_CLOEXEC, 0) // it keeps the number
	}
	return -1, fmt.Errorf("open %s: nothing is given for it", f.Name)
}

// verify closes fd unless it is what f says that it must be.
func (f File) verify(fd int) (err error) {
	defer errs.Undo(&err, func() error { return unix.Close(fd) })
	if f.Device != 0 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("%s: stat %s: %w", f.Name, f.Path, err)
		}
		if st.Mode&unix.S_IFMT != unix.S_IFCHR || uint64(st.Rdev) != f.Device {
			return fmt.Errorf("%s: %s is not character device %d:%d", f.Name, f.Path, unix.Major(f.Device), unix.Minor(f.Device))
		}
	}
	if f.Magic != 0 {
		var st unix.Statfs_t
		if err := unix.Fstatfs(fd, &st); err != nil {
			return fmt.Errorf("%s: statfs %s: %w", f.Name, f.Path, err)
		}
		if int64(st.Type) != f.Magic {
			return fmt.Errorf("%s: %s is of another filesystem (0x%x)", f.Name, f.Path, st.Type)
		}
	}
	return nil
}

// change makes the tree fd what f says, or closes it.
func (f File) change(fd int) (err error) {
	if err := f.verify(fd); err != nil {
		return err
	}
	defer errs.Undo(&err, func() error { return unix.Close(fd) })
	if f.IDMap != nil {
		if err := f.IDMap.apply(fd); err != nil {
			return fmt.Errorf("%s: map the ids of %s: %w", f.Name, f.Path, err)
		}
	}
	for _, a := range f.Attrs {
		flags := uint(unix.AT_EMPTY_PATH)
		if a.recursive {
			flags |= unix.AT_RECURSIVE
		}
		attr := a.attr
		if err := unix.MountSetattr(fd, "", flags, &attr); err != nil {
			return fmt.Errorf("%s: %s on %s: %w", f.Name, describeAttr(a), f.Path, err)
		}
	}
	return nil
}

// failure is the error that a report tells.
func (p *Plan) failure(addr uint64, errno syscall.Errno) error {
	i := stepIndex(addr)
	if i < 0 || i >= len(p.Steps) {
		return fmt.Errorf("the child reports a step %d that is none: %w", i, errno)
	}
	s := p.Steps[i]
	return &StepError{Name: s.Name, Path: s.Path, Call: s.Call, Index: i, Errno: errno}
}

// StepError is a step of the child that failed.
type StepError struct {
	Index      int    // in Plan.Steps
	Name, Path string // of the step
	Call       string // the system call
	Errno      syscall.Errno
}

// Error says which step failed, by which call, and why.
func (e *StepError) Error() string {
	return fmt.Sprintf("step %d: %s %s: %s: %v", e.Index, e.Name, e.Path, e.Call, e.Errno)
}

// Unwrap is the errno.
func (e *StepError) Unwrap() error { return e.Errno }

// follow goes on with the process that the plan forked, and reaps the one that
// it leaves.
func (c *child) follow(pid int) error {
	left := *c
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("open pidfd of %d: %w", pid, err)
	}
	c.pid, c.pidfd, c.forks = pid, os.NewFile(uintptr(fd), "pidfd"), false
	defer left.pidfd.Close()
	_, err = left.wait()
	return err
}

// kill ends a child that is not to be, and reaps it.
func (c *child) kill() error {
	defer c.pidfd.Close()
	err := unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", c.pid, err)
	}
	_, err = c.wait()
	return err
}

// wait reaps the child. That somebody else did is as good.
func (c *child) wait() (ws syscall.WaitStatus, err error) {
	if c.reap != nil {
		ws, err = c.reap(c.pid)
	} else {
		ws, err = Wait(c.pidfd)
	}
	if err != nil && !errors.Is(err, unix.ECHILD) {
		return 0, fmt.Errorf("reap %d: %w", c.pid, err)
	}
	return ws, nil
}

// Wait reaps the child that pidfd refers to, and says how it ended.
func Wait(pidfd *os.File) (syscall.WaitStatus, error) {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_PIDFD, int(pidfd.Fd()), &info, unix.WEXITED, nil)
		if err == nil {
			return waitStatus(&info), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return 0, err
		}
	}
}
