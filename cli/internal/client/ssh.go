package client

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
)

// piped is a connection to a program's standard input and output: one end of a
// socket pair, so that deadlines and half-close work as on any socket.
type piped struct {
	*net.UnixConn
	cmd *exec.Cmd
}

// startPiped starts cmd with a socket as its standard input and output.
func startPiped(cmd *exec.Cmd) (net.Conn, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ssh"), os.NewFile(uintptr(fds[1]), "ssh")
	defer ours.Close()
	defer theirs.Close()
	c, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout = theirs, theirs
	// A process group of its own: Ctrl-C is for the container, not for ssh.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		c.Close()
		return nil, err
	}
	return &piped{UnixConn: c.(*net.UnixConn), cmd: cmd}, nil
}

// Close ends the program and waits for it.
func (p *piped) Close() error {
	err := p.UnixConn.Close()
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.cmd.Wait()
	return err
}
