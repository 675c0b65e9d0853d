package ociruntime

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// launch is one plan on its way to be a process.
type launch struct {
	plan   *Plan
	stdio  [3]*os.File // nil is /dev/null
	extra  []*os.File
	given  map[string]int // descriptors that the plan's nameless files stand for
	cgroup int            // cgroup v2 directory to be born in, or -1
	pidns  int            // pid namespace to be born in, or -1
	uids   []specs.LinuxIDMapping
	gids   []specs.LinuxIDMapping
	trace  func(part, name, call string, start time.Time)
}

// child is a process that goes through a plan.
type child struct {
	pid   int
	pidfd *os.File
	plan  *Plan
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
		files = append(files, f.Fd())
	}
	for _, f := range l.plan.Files {
		fd, ok := l.given[f.Name]
		if f.Call != "" || !ok {
			start := time.Now()
			if fd, err = f.open(); err != nil {
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
	return l.clone(image, files)
}

func (l *launch) note(name, call string, start time.Time) {
	if l.trace != nil {
		l.trace("runtime", name, call, start)
	}
}

// clone starts the image. Its descriptors are files, in that order.
func (l *launch) clone(image int, files []uintptr) (*child, error) {
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
		attr.Sys.Credential = &syscall.Credential{NoSetGroups: true}
	}
	path := fmt.Sprintf("/proc/self/fd/%d", image)
	pid, err := inPidNamespace(l.pidns, func() (int, error) {
		return syscall.ForkExec(path, []string{"gantry-init"}, attr)
	})
	if err != nil {
		return nil, fmt.Errorf("clone into new namespaces: %w", err)
	}
	c := &child{pid: pid, plan: l.plan}
	if pidfd < 0 {
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			return nil, fmt.Errorf("open pidfd of %d: %w", pid, err)
		}
	}
	c.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	l.note("clone", "clone3", start)
	return c, nil
}

func sysMap(m []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	list := make([]syscall.SysProcIDMap, 0, len(m))
	for _, e := range m {
		list = append(list, syscall.SysProcIDMap{ContainerID: int(e.ContainerID), HostID: int(e.HostID), Size: int(e.Size)})
	}
	return list
}

// inPidNamespace calls fork on a thread whose children are born in the pid
// namespace ns, or just calls it for ns -1. A locked thread is never the one
// that the Go runtime clones its threads from.
func inPidNamespace(ns int, fork func() (int, error)) (pid int, err error) {
	if ns < 0 {
		return fork()
	}
	runtime.LockOSThread()
	own, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return 0, fmt.Errorf("open own pid namespace: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(ns, unix.CLONE_NEWPID); err != nil {
		runtime.UnlockOSThread()
		return 0, fmt.Errorf("join pid namespace: %w", err)
	}
	pid, err = fork()
	if back := unix.Setns(own, unix.CLONE_NEWPID); back != nil {
		// The thread stays locked, and ends with this goroutine.
		return pid, errors.Join(err, fmt.Errorf("leave pid namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return pid, err
}

// open opens f for the child.
func (f File) open() (fd int, err error) {
	switch f.Call {
	case "open":
		if fd, err = unix.Open(f.Path, f.Flags|unix.O_CLOEXEC, 0); err != nil {
			return -1, fmt.Errorf("open %s %s: %w", f.Name, f.Path, err)
		}
		return fd, nil
	case "open_tree":
		return f.openTree()
	}
	return -1, fmt.Errorf("open %s: nothing is given for it", f.Name)
}

func (f File) openTree() (fd int, err error) {
	if fd, err = unix.OpenTree(unix.AT_FDCWD, f.Path, uint(f.Flags)); err != nil {
		return -1, fmt.Errorf("%s: open_tree %s: %w", f.Name, f.Path, err)
	}
	defer errs.Undo(&err, func() error { return unix.Close(fd) })
	if f.IDMap != nil {
		if err := f.IDMap.apply(fd); err != nil {
			return fd, fmt.Errorf("%s: map the ids of %s: %w", f.Name, f.Path, err)
		}
	}
	for _, a := range f.Attrs {
		flags := uint(unix.AT_EMPTY_PATH)
		if a.recursive {
			flags |= unix.AT_RECURSIVE
		}
		attr := a.attr
		if err := unix.MountSetattr(fd, "", flags, &attr); err != nil {
			return fd, fmt.Errorf("%s: %s on %s: %w", f.Name, describeAttr(a), f.Path, err)
		}
	}
	return fd, nil
}

// report is what the child writes to its status: a word of compile.go, or the
// address of a step that failed, with the errno.
func readReport(r io.Reader) (word uint64, errno syscall.Errno, err error) {
	var b [16]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, 0, err
	}
	return binary.LittleEndian.Uint64(b[:]), syscall.Errno(binary.LittleEndian.Uint64(b[8:])), nil
}

// await reads the status until the child says word. A step that failed is
// returned as a *StepError.
func (c *child) await(status io.Reader, word uint64) error {
	got, errno, err := readReport(status)
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the child died on its way, without a word (killed from outside, or for want of memory)")
	case err != nil:
		return fmt.Errorf("read the child's status: %w", err)
	case got >= dataBase:
		return c.plan.failure(got, errno)
	case got != word:
		return fmt.Errorf("the child says %d where %d was due", got, word)
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

// kill ends a child that is not to be, and reaps it.
func (c *child) kill(reap func(int) (syscall.WaitStatus, error)) error {
	err := unix.PidfdSendSignal(int(c.pidfd.Fd()), unix.SIGKILL, nil, 0)
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", c.pid, err)
	}
	if _, err := c.wait(reap); err != nil && !errors.Is(err, unix.ECHILD) {
		return fmt.Errorf("reap %d: %w", c.pid, err)
	}
	return nil
}

// wait reaps the child.
func (c *child) wait(reap func(int) (syscall.WaitStatus, error)) (syscall.WaitStatus, error) {
	if reap != nil {
		return reap(c.pid)
	}
	return Wait(c.pidfd)
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
