package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// waitFor is a shim that was started ahead of its container's task, so that the
// start need not wait for a process to come up (docs/joint/shim.md, "Started
// ahead"). Descriptor 3 is a packet socket to the daemon:
//
//	shim ── "ready" ──▶ daemon
//	shim ◀── "BUNDLE\0SOCKET", descriptors: the socket, the log ── daemon
//
// From then on it is a shim as any other. If the daemon closes its end, or dies,
// before that, nobody wants the shim.
func waitFor(cfg Config) error {
	if err := unix.Send(socketFD, []byte("ready"), unix.MSG_NOSIGNAL); err != nil {
		return nil // nobody wants it
	}
	bundle, err := cfg.receive()
	if err != nil || bundle == "" {
		return err
	}
	// Where a shim's working directory is, says to a daemon whose shim it is.
	if err := os.Chdir(bundle); err != nil {
		return err
	}
	s, err := New(cfg)
	if err != nil {
		return err
	}
	return s.Run()
}

// receive waits for the bundle, and takes what comes with it. An empty bundle says
// that there is none.
func (cfg *Config) receive() (bundle string, err error) {
	data, oob := make([]byte, 2*unix.PathMax), make([]byte, unix.CmsgSpace(2*4))
	n, oobn := 0, 0
	for err = unix.EINTR; err == unix.EINTR; {
		n, oobn, _, _, err = unix.Recvmsg(socketFD, data, oob, unix.MSG_CMSG_CLOEXEC)
	}
	if n == 0 || errors.Is(err, unix.ECONNRESET) {
		return "", nil
	}
	if err != nil {
		return "", os.NewSyscallError("recvmsg", err)
	}
	if err := unix.Close(socketFD); err != nil {
		return "", os.NewSyscallError("close", err)
	}
	fds, err := rights(oob[:oobn])
	if err != nil {
		return "", err
	}
	dir, path, ok := bytes.Cut(data[:n], []byte{0})
	if !ok || len(fds) != 2 {
		return "", fmt.Errorf("what the daemon sent has %d descriptors, want BUNDLE\\0SOCKET and 2", len(fds))
	}
	if err := unix.Dup3(fds[1], 2, 0); err != nil {
		return "", os.NewSyscallError("dup3", err)
	}
	unix.Close(fds[1])
	cfg.SocketPath = string(path)
	cfg.Socket = os.NewFile(uintptr(fds[0]), cfg.SocketPath)
	return string(dir), nil
}

// rights are the descriptors in the control messages of a packet.
func rights(oob []byte) (fds []int, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		got, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, err
		}
		fds = append(fds, got...)
	}
	return fds, nil
}
