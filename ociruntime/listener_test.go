package ociruntime

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// agent answers every call that a filter notifies of with an errno, as long as
// there are processes with the filter.
func agent(t *testing.T, socket string, errno unix.Errno) <-chan specs.ContainerProcessState {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	states := make(chan specs.ContainerProcessState, 4)
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			buf, control := make([]byte, 1<<16), make([]byte, 64)
			n, cn, _, _, err := conn.ReadMsgUnix(buf, control)
			if err != nil {
				t.Error(err)
				return
			}
			var st specs.ContainerProcessState
			if err := json.Unmarshal(buf[:n], &st); err != nil {
				t.Errorf("the agent is told %q: %v", buf[:n], err)
			}
			if n, _ := conn.Read(buf); n != 0 {
				t.Error("the connection is used again")
			}
			conn.Close()
			messages, err := unix.ParseSocketControlMessage(control[:cn])
			if err != nil || len(messages) != 1 {
				t.Errorf("%d messages, %v", len(messages), err)
				return
			}
			fds, err := unix.ParseUnixRights(&messages[0])
			if err != nil || len(fds) != 1 {
				t.Errorf("%d descriptors, %v", len(fds), err)
				return
			}
			states <- st
			go answer(fds[0], errno)
		}
	}()
	return states
}

// answer is the loop of an agent (seccomp_unotify(2)).
func answer(listener int, errno unix.Errno) {
	defer unix.Close(listener)
	const recv, send = 0xc0502100, 0xc0182101
	for {
		fds := []unix.PollFd{{Fd: int32(listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err == unix.EINTR {
			continue
		} else if err != nil || fds[0].Revents&unix.POLLHUP != 0 {
			return
		}
		var call [80]byte
		if _, _, err := unix.Syscall(unix.SYS_IOCTL, uintptr(listener), recv, uintptr(unsafe.Pointer(&call))); err != 0 {
			continue
		}
		resp := struct {
			id    uint64
			val   int64
			err   int32
			flags uint32
		}{id: *(*uint64)(unsafe.Pointer(&call)), err: -int32(errno)}
		unix.Syscall(unix.SYS_IOCTL, uintptr(listener), send, uintptr(unsafe.Pointer(&resp)))
	}
}

func TestTheSeccompAgentDecides(t *testing.T) {
	r := newRig(t)
	socket := filepath.Join(r.dir, "agent")
	states := agent(t, socket, unix.EXDEV)
	s := dockerSpec(t, "sh", "-c", "echo mine > /tmp/f; chmod 600 /tmp/f; sleep 100")
	s.Annotations = map[string]string{"k": "v"}
	s.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, ListenerPath: socket, ListenerMetadata: "meta",
		Syscalls: []specs.LinuxSyscall{{Names: []string{"chmod", "fchmodat", "fchmodat2"}, Action: specs.ActNotify}},
	}
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	st := <-states
	if st.Pid != b.Pid || st.State.Pid != b.Pid || st.Metadata != "meta" || st.State.Status != "creating" || st.State.ID != b.ID ||
		strings.Join(st.Fds, " ") != "seccompFd" || st.State.Annotations["k"] != "v" || st.Version == "" {
		t.Errorf("the agent is told %+v", st)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, _, err := b.exec(process(s, "sh", "-c", "chmod 600 /tmp 2>&1; ls /proc/self/fd"))
	if want := "chmod: /tmp: Invalid cross-device link\n0\n1\n2\n3"; err != nil || out != want {
		t.Errorf("exec printed %q, want %q, %v", out, want, err)
	}
	if st := <-states; st.State.Status != "running" || st.Pid == b.Pid || st.State.Pid != b.Pid {
		t.Errorf("of the exec the agent is told %+v", st)
	}
}

func TestProfilesThatCannotNotify(t *testing.T) {
	r := newRig(t)
	notify := []specs.LinuxSyscall{{Names: []string{"write"}, Action: specs.ActNotify}}
	mount := []specs.LinuxSyscall{{Names: []string{"mount"}, Action: specs.ActNotify}}
	for want, profile := range map[string]specs.LinuxSeccomp{
		"listenerMetadata: it needs listenerPath":                         {DefaultAction: specs.ActAllow, ListenerMetadata: "x"},
		"needs linux.seccomp.listenerPath":                                {DefaultAction: specs.ActAllow, Syscalls: mount},
		"cannot be used for the write syscall":                            {DefaultAction: specs.ActAllow, Syscalls: notify, ListenerPath: "/x"},
		"defaultAction":                                                   {DefaultAction: specs.ActNotify, ListenerPath: "/x"},
		"listenerPath: failed to connect with seccomp agent at /no/agent": {DefaultAction: specs.ActAllow, Syscalls: mount, ListenerPath: "/no/agent"},
	} {
		s := dockerSpec(t, "true")
		s.Linux.Seccomp = &profile
		if _, err := r.create(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if left, err := os.ReadDir(r.root); err == nil && len(left) > 0 {
		t.Errorf("%d containers are left", len(left))
	}
}
