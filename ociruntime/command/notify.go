package command

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/ociruntime"
)

// notifier passes on to the service manager that a container is ready
// (sd_notify(3)). Of what the program says that is all: with other words it could
// give the manager another main process to watch, or a file to keep.
type notifier struct {
	inside, host int // the container's socket, and the manager's
}

// untold is the warning where the manager was not told.
const untold = "the service manager may not know that the container is ready"

// notifyEnv names the manager's socket; "" is none.
const notifyEnv = "NOTIFY_SOCKET"

// listenForReady listens to what the container says, where there is a manager to
// tell. It is nil where there is none.
func listenForReady(c *ociruntime.Container) (_ *notifier, err error) {
	manager, socket := os.Getenv(notifyEnv), c.NotifySocket()
	if manager == "" || socket == "" {
		return nil, nil
	}
	n := &notifier{-1, -1}
	defer func() {
		if err != nil {
			n.close()
			err = fmt.Errorf("%s=%s: %w", notifyEnv, manager, err)
		}
	}()
	for _, fd := range []*int{&n.inside, &n.host} {
		if *fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return nil, err
		}
	}
	if err := unix.Connect(n.host, &unix.SockaddrUnix{Name: manager}); err != nil {
		return nil, err
	}
	// The path may be longer than a socket's address: the directory is a descriptor.
	if err := bindIn(n.inside, socket); err != nil {
		return nil, err
	}
	return n, os.Chmod(socket, 0o777)
}

// bindIn binds a socket to a path of any length.
func bindIn(fd int, socket string) error {
	i := strings.LastIndexByte(socket, '/')
	dir, err := unix.Open(socket[:i], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d%s", dir, socket[i:])})
}

func (n *notifier) close() {
	if n == nil {
		return
	}
	for _, fd := range []int{n.inside, n.host} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// pass waits until the container is ready, or gone, and tells the manager; its
// main process is from then on mainPid.
func (n *notifier) pass(pidfd *os.File, mainPid int) error {
	if n == nil {
		return nil
	}
	defer n.close()
	ready, err := n.await(pidfd)
	if err != nil || !ready {
		return err
	}
	for _, said := range []string{"READY=1\n", "MAINPID=" + strconv.Itoa(mainPid) + "\n"} {
		if err := n.tell(said, nil); err != nil {
			return err
		}
	}
	return n.barrier()
}

// await says whether the container is ready; false is that it has ended before.
func (n *notifier) await(pidfd *os.File) (ready bool, err error) {
	fds := []unix.PollFd{{Fd: int32(n.inside), Events: unix.POLLIN}, {Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	const most = 4096 // of a message
	buf := make([]byte, most)
	for {
		if _, err := unix.Poll(fds, -1); errors.Is(err, unix.EINTR) {
			continue
		} else if err != nil {
			return false, fmt.Errorf("wait for the container to be ready: %w", err)
		}
		if fds[0].Revents == 0 {
			return false, nil
		}
		size, _, err := unix.Recvfrom(n.inside, buf, unix.MSG_DONTWAIT)
		if err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("wait for the container to be ready: %w", err)
		}
		for line := range strings.SplitSeq(string(buf[:max(size, 0)]), "\n") {
			if line == "READY=1" {
				return true, nil
			}
		}
	}
}

func (n *notifier) tell(said string, rights []byte) error {
	if err := unix.Sendmsg(n.host, []byte(said), rights, nil, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("tell the service manager %s: %w", strings.TrimSpace(said), err)
	}
	return nil
}

// barrierTime is how long a manager that knows no barrier is waited for.
const barrierTime = 30 * time.Second

// barrier waits until the manager has read what was said, for it asks the kernel
// who we are (sd_notify_barrier(3)): it closes the descriptor that it is sent.
func (n *notifier) barrier() error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	err := n.tell("BARRIER=1", unix.UnixRights(pipe[1]))
	unix.Close(pipe[1])
	if err != nil {
		return err
	}
	end := time.Now().Add(barrierTime)
	fds := []unix.PollFd{{Fd: int32(pipe[0])}} // of a hangup one is told anyway
	for {
		got, err := unix.Poll(fds, max(0, int(time.Until(end).Milliseconds())))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for the service manager: %w", err)
		case got == 0:
			return fmt.Errorf("the service manager has not read %v after %v", "BARRIER=1", barrierTime)
		default:
			return nil
		}
	}
}
