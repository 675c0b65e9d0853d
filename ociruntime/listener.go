package ociruntime

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A seccomp agent decides, in user space, on the calls of which the filter says
// SCMP_ACT_NOTIFY:
//
//	child                          parent                    agent
//	  │ seccomp(2) is a descriptor   │                         │
//	  │ status: {listener, fd} ────▶ │ pidfd_getfd             │
//	  │                              │ process state, fd ────▶ │
//	  │ status: {ready, 0}           │ ◀── closes its copy     │
//	  │ a call that is to be told ─────────────────────────────▶ decides
//
// The child itself could not send the descriptor: the agent that it sends it to
// may have to decide on the sending.

// checkListener says what cannot be carried out of a profile that notifies.
func checkListener(s *specs.LinuxSeccomp) error {
	if s.DefaultAction == specs.ActNotify {
		return errors.New("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY would hold the calls by which the agent learns of it")
	}
	if s.ListenerMetadata != "" && s.ListenerPath == "" {
		return errors.New("linux.seccomp.listenerMetadata: it needs listenerPath")
	}
	for i, c := range s.Syscalls {
		if c.Action != specs.ActNotify {
			continue
		}
		if s.ListenerPath == "" {
			return fmt.Errorf("linux.seccomp.syscalls[%d]: SCMP_ACT_NOTIFY needs linux.seccomp.listenerPath", i)
		}
		for _, n := range c.Names {
			if n == "write" {
				return fmt.Errorf("linux.seccomp.syscalls[%d]: SCMP_ACT_NOTIFY cannot be used for the write syscall, by which the agent learns of it", i)
			}
		}
	}
	return nil
}

// notify gives the agent of a profile the listener of its filter. The child has
// it as descriptor fd.
func (c *child) notify(s *specs.LinuxSeccomp, fd int, st State) error {
	got, err := unix.PidfdGetfd(int(c.pidfd.Fd()), fd, 0)
	if err != nil {
		return fmt.Errorf("take the listener of the seccomp filter: pidfd_getfd: %w", err)
	}
	listener := os.NewFile(uintptr(got), "seccomp listener")
	defer listener.Close()
	message, err := json.Marshal(specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: c.pid, Metadata: s.ListenerMetadata,
		State: specs.State{
			Version: st.Version, ID: st.ID, Status: specs.ContainerState(st.Status),
			Pid: st.Pid, Bundle: st.Bundle, Annotations: st.Annotations,
		},
	})
	if err != nil {
		return err
	}
	if err := sendTo(s.ListenerPath, message, listener); err != nil {
		return fmt.Errorf("linux.seccomp.listenerPath: %w", err)
	}
	return nil
}

// sendTo sends a message and a descriptor to who listens on a unix socket.
func sendTo(socket string, message []byte, f *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return fmt.Errorf("failed to connect with seccomp agent at %s: %w", socket, err) // callers know these words
	}
	n, err := unix.SendmsgN(fd, message, unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL)
	for err == nil && n < len(message) {
		message = message[n:]
		n, err = unix.SendmsgN(fd, message, nil, nil, unix.MSG_NOSIGNAL)
	}
	if err != nil {
		return fmt.Errorf("send to %s: %w", socket, err)
	}
	return nil
}
