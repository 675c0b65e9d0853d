package shim

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/shim/internal/stream"
)

// consoleSocket is where a runtime sends the master of a container's terminal
// (runc, docs/terminals.md, "--console-socket").
type consoleSocket struct {
	path     string
	listener *os.File
}

func listenConsole(path string) (*consoleSocket, error) {
	l, err := api.Listen(path)
	if err != nil {
		return nil, err
	}
	return &consoleSocket{path: path, listener: l}, nil
}

func (c *consoleSocket) close() { c.listener.Close() }

// consoleTimeout is how long a runtime that has ended may have left it undone.
const consoleTimeout = 5 * time.Second

// receive takes the master. The runtime has connected and sent already: it ended.
func (c *consoleSocket) receive() (*os.File, error) {
	c.listener.SetDeadline(time.Now().Add(consoleTimeout))
	conn, err := stream.AcceptOne(c.listener)
	if err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(consoleTimeout))
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fds []int
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		fds, rerr = receiveFDs(int(fd))
		return rerr != unix.EAGAIN
	})
	if err == nil {
		err = rerr
	}
	if err != nil {
		return nil, fmt.Errorf("receive console: %w", err)
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return nil, fmt.Errorf("receive console: %d descriptors, want 1", len(fds))
	}
	return stream.Pollable(fds[0], "console"), nil
}

func receiveFDs(fd int) ([]int, error) {
	var data [4096]byte // the runtime sends the terminal's name along
	oob := make([]byte, unix.CmsgSpace(4*4))
	_, n, _, _, err := unix.Recvmsg(fd, data[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return rights(oob[:n])
}

// resize sets the size of a terminal in characters.
func resize(console *os.File, size *unix.Winsize) error {
	raw, err := console.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size)
	})
	if err == nil {
		err = ierr
	}
	return err
}
