package command

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// sendFile passes a descriptor to who listens on a unix socket, with its name
// as the message (runc, docs/terminals.md).
func sendFile(socket string, file *os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("make a socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return fmt.Errorf("connect to %s: %w", socket, err)
	}
	if err := unix.Sendmsg(fd, []byte(file.Name()), unix.UnixRights(int(file.Fd())), nil, 0); err != nil {
		return fmt.Errorf("send to %s: %w", socket, err)
	}
	return nil
}
