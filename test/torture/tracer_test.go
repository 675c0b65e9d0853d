package torture

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// traceVar makes this program a tracer of what it says.
const traceVar = "GANTRY_TORTURE_TRACE"

// traced is what a tracer traces. It traces from outside, by ptrace(2): nothing in
// the programs knows of it.
type traced struct {
	Pid    int
	Follow string // trace not Pid, but the programs of that name that it starts
	At     int    // kill who is about to make this call, counted from 1; 0: kill nobody
}

// tracer is a process that traces: when it ends, what it traced is left alone.
type tracer struct {
	cmd  *exec.Cmd
	out  *bufio.Reader
	what []string // the calls that were counted
	died bool     // the program that was to be killed, and not a child of it before its execve
}

// trace begins to trace.
func (w *world) trace(what traced) *tracer {
	wish, err := json.Marshal(what)
	if err != nil {
		w.t.Fatal(err)
	}
	tr := &tracer{cmd: exec.Command("/proc/self/exe")}
	tr.cmd.Env = append(os.Environ(), traceVar+"="+string(wish))
	tr.cmd.Stderr = os.Stderr
	pipe, err := tr.cmd.StdoutPipe()
	if err == nil {
		err = tr.cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	tr.out = bufio.NewReader(pipe)
	if line, err := tr.out.ReadString('\n'); line != "ready\n" {
		w.t.Fatalf("tracer of %+v: %q %v", what, line, err)
	}
	return tr
}

// end ends the tracer. Its last line is whole, for a line is one write.
func (tr *tracer) end() {
	tr.cmd.Process.Kill()
	data, _ := io.ReadAll(tr.out)
	tr.cmd.Wait()
	for line := range strings.Lines(string(data)) {
		kind, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		tr.died = tr.died || kind == "killed"
		tr.what = append(tr.what, text)
	}
}

// steps are the system calls by which a program changes something that outlives
// it, or tells somebody something. Those with a path have the argument's place, from 1;
// those with a descriptor count only where it is a file or a socket.
var steps = map[uint64]struct {
	name string
	path int
	fd   bool
}{
	unix.SYS_RENAMEAT: {"renameat", 2, false}, unix.SYS_RENAMEAT2: {"renameat2", 2, false}, unix.SYS_LINKAT: {"linkat", 4, false},
	unix.SYS_SYMLINKAT: {"symlinkat", 3, false}, unix.SYS_UNLINKAT: {"unlinkat", 2, false}, unix.SYS_MKDIRAT: {"mkdirat", 2, false},
	unix.SYS_MKNODAT: {"mknodat", 2, false}, unix.SYS_OPENAT: {"openat", 2, false},
	unix.SYS_FCHMODAT: {"fchmodat", 2, false}, unix.SYS_FCHOWNAT: {"fchownat", 2, false}, unix.SYS_UTIMENSAT: {"utimensat", 2, false},
	unix.SYS_WRITE: {"write", 0, true}, unix.SYS_WRITEV: {"writev", 0, true}, unix.SYS_PWRITE64: {"pwrite64", 0, true},
	unix.SYS_FTRUNCATE: {"ftruncate", 0, true}, unix.SYS_FSYNC: {"fsync", 0, true}, unix.SYS_FDATASYNC: {"fdatasync", 0, true},
	unix.SYS_SYNCFS: {"syncfs", 0, true}, unix.SYS_COPY_FILE_RANGE: {"copy_file_range", 0, false}, unix.SYS_SENDMSG: {"sendmsg", 0, true},
	unix.SYS_SENDTO: {"sendto", 0, true}, unix.SYS_CONNECT: {"connect", 0, false}, unix.SYS_BIND: {"bind", 0, false},
	unix.SYS_MOUNT: {"mount", 2, false}, unix.SYS_UMOUNT2: {"umount2", 1, false}, unix.SYS_MOVE_MOUNT: {"move_mount", 4, false},
	unix.SYS_FSCONFIG: {"fsconfig", 0, false}, unix.SYS_FSMOUNT: {"fsmount", 0, false}, unix.SYS_OPEN_TREE: {"open_tree", 2, false},
	unix.SYS_MOUNT_SETATTR: {"mount_setattr", 2, false}, unix.SYS_PIVOT_ROOT: {"pivot_root", 0, false},
	unix.SYS_CLONE: {"clone", 0, false}, unix.SYS_CLONE3: {"clone3", 0, false}, unix.SYS_EXECVE: {"execve", 1, false},
	unix.SYS_SETNS: {"setns", 0, false}, unix.SYS_UNSHARE: {"unshare", 0, false}, unix.SYS_KILL: {"kill", 0, false},
	unix.SYS_PIDFD_SEND_SIGNAL: {"pidfd_send_signal", 0, false}, unix.SYS_SETXATTR: {"setxattr", 0, false}, unix.SYS_WAITID: {"waitid", 0, false},
}

// tracing is the life of a tracer.
type tracing struct {
	traced
	counts   map[int]bool // by thread: whether its calls are counted
	programs map[int]bool // by process: whether it executed what is traced
	n        int
}

// runTracer traces what the environment says until nothing is left to be traced,
// or until it is killed.
func runTracer() error {
	runtime.LockOSThread() // what is traced knows one thread
	tr := &tracing{counts: map[int]bool{}, programs: map[int]bool{}}
	if err := json.Unmarshal([]byte(os.Getenv(traceVar)), &tr.traced); err != nil {
		return err
	}
	if err := tr.seize(); err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		var status unix.WaitStatus
		tid, err := unix.Wait4(-1, &status, unix.WALL, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD):
			return nil
		case err != nil:
			return fmt.Errorf("wait: %w", err)
		case status.Stopped():
			// One that was killed meanwhile is gone from under the call.
			if err := tr.stopped(tid, status); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("go on with %d: %w", tid, err)
			}
		default:
			delete(tr.counts, tid)
		}
	}
}

// seize takes hold of all threads of the process, also of those that it makes
// meanwhile.
func (tr *tracing) seize() error {
	options := unix.PTRACE_O_TRACESYSGOOD | unix.PTRACE_O_TRACECLONE
	if tr.Follow != "" {
		options |= unix.PTRACE_O_TRACEFORK | unix.PTRACE_O_TRACEVFORK | unix.PTRACE_O_TRACEEXEC
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", tr.Pid))
	if err != nil {
		return err
	}
	counts := tr.Follow == "" || filepath.Base(exe) == tr.Follow
	tr.programs[tr.Pid] = counts
	held := map[string]bool{}
	for more := true; more; {
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", tr.Pid))
		if err != nil {
			return err
		}
		more = false
		for _, e := range threads {
			if held[e.Name()] {
				continue
			}
			held[e.Name()], more = true, true
			tid, err := strconv.Atoi(e.Name())
			if err != nil {
				return err
			}
			// EPERM: a thread that has been seized made it, and it came with that one.
			if err := ptrace(unix.PTRACE_SEIZE, tid, 0, uintptr(options)); err != nil && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EPERM) {
				return fmt.Errorf("seize %d: %w", tid, err)
			}
			tr.counts[tid] = counts
			if err := ptrace(unix.PTRACE_INTERRUPT, tid, 0, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("interrupt %d: %w", tid, err)
			}
		}
	}
	return nil
}

func ptrace(request, pid int, addr, data uintptr) error {
	if _, _, e := unix.Syscall6(unix.SYS_PTRACE, uintptr(request), uintptr(pid), addr, data, 0, 0); e != 0 {
		return e
	}
	return nil
}

// stopped looks at a thread that has stopped, and lets it go on.
func (tr *tracing) stopped(tid int, status unix.WaitStatus) error {
	counts, known := tr.counts[tid]
	if !known { // the child of one that is traced: the same program, until it executes another
		counts = tr.isWanted(tid)
		tr.counts[tid] = counts
	}
	deliver := uintptr(0)
	switch event, signal := int(status)>>16, status.StopSignal(); {
	case signal == unix.SIGTRAP|0x80:
		if err := tr.call(tid); err != nil {
			return err
		}
	case event == unix.PTRACE_EVENT_EXEC:
		if counts = tr.isWanted(tid); !counts {
			return ptrace(unix.PTRACE_DETACH, tid, 0, 0)
		}
		tr.counts[tid], tr.programs[tid] = counts, counts
	case event == unix.PTRACE_EVENT_STOP && signal != unix.SIGTRAP:
		return ptrace(unix.PTRACE_LISTEN, tid, 0, 0)
	case event == 0:
		deliver = uintptr(signal)
	}
	if !counts {
		return ptrace(unix.PTRACE_CONT, tid, 0, deliver)
	}
	return ptrace(unix.PTRACE_SYSCALL, tid, 0, deliver)
}

func (tr *tracing) isWanted(tid int) bool {
	if tr.Follow == "" {
		return true
	}
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", tid))
	return strings.TrimSuffix(filepath.Base(exe), " (deleted)") == tr.Follow
}

// call counts the call that a thread is about to make, and kills its process
// instead of letting it be made where its turn has come.
func (tr *tracing) call(tid int) error {
	// struct ptrace_syscall_info of ptrace(2).
	var info struct {
		op     uint8
		_      [3]uint8
		_      uint32
		_, _   uint64
		number uint64
		args   [6]uint64
	}
	const entry = 1
	err := ptrace(unix.PTRACE_GET_SYSCALL_INFO, tid, unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)))
	if err != nil || info.op != entry {
		return err
	}
	step, ok := steps[info.number]
	if !ok {
		return nil
	}
	text := step.name
	switch {
	case info.number == unix.SYS_CLONE && info.args[0]&unix.CLONE_THREAD != 0,
		info.number == unix.SYS_OPENAT && info.args[2]&unix.O_CREAT == 0:
		return nil
	case info.number == unix.SYS_CLONE3:
		var flags [8]byte
		if _, err := unix.PtracePeekData(tid, uintptr(info.args[0]), flags[:]); err == nil && flags[2]&(unix.CLONE_THREAD>>16) != 0 {
			return nil
		}
	case step.fd:
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tid, info.args[0]))
		if err != nil || info.args[0] == 1 || info.args[0] == 2 || strings.HasPrefix(target, "anon_inode:") || strings.HasPrefix(target, "pipe:") {
			return nil
		}
		text += " " + target
	case step.path > 0:
		text += " " + peekString(tid, uintptr(info.args[step.path-1]))
	}
	tr.n++
	if tr.n != tr.At {
		fmt.Println("step", text)
		return nil
	}
	pid, err := processOf(tid)
	if err != nil {
		return err
	}
	if tr.programs[pid] {
		fmt.Println("killed", text)
	} else {
		fmt.Println("child", text)
	}
	return unix.Kill(pid, unix.SIGKILL)
}

func peekString(tid int, addr uintptr) string {
	var data [200]byte
	n, _ := unix.PtracePeekData(tid, addr, data[:])
	text, _, _ := bytes.Cut(data[:n], []byte{0})
	return string(text)
}

// processOf is the process of a thread.
func processOf(tid int) (pid int, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(data), "\nTgid:")
	_, err = fmt.Sscan(after, &pid)
	return pid, err
}

// traceHere is the main of a tracer.
func traceHere() {
	if err := runTracer(); err != nil {
		fmt.Fprintln(os.Stderr, "tracer:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
