package stdio

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxPath is the longest path of a unix socket in bytes (unix(7), sun_path).
const maxPath = 107

// Listen makes a unix stream socket at path, for its owner only, that listens and
// does not block. The path may be longer than 107 bytes. A socket that nobody
// listens on any more is left from a process that was killed, and is replaced;
// where somebody does, the error is unix.EADDRINUSE.
func Listen(path string) (*os.File, error) {
	fd, err := socketAt(path, func(fd int, sa unix.Sockaddr) error {
		err := unix.Bind(fd, sa)
		if err == unix.EADDRINUSE && abandoned(path) {
			err = unix.Bind(fd, sa)
		}
		if err != nil {
			return err
		}
		if err := unix.Chmod(path, 0o600); err != nil {
			return err
		}
		return unix.Listen(fd, unix.SOMAXCONN)
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// abandoned removes the socket at path if nobody listens on it.
func abandoned(path string) bool {
	if st, err := os.Lstat(path); err != nil || st.Mode().Type() != os.ModeSocket {
		return false // connect(2) refuses a file in the same words
	}
	f, err := connect(path)
	if err == nil {
		f.Close()
		return false
	}
	return errors.Is(err, unix.ECONNREFUSED) && os.Remove(path) == nil
}

// connect connects to the unix socket at path, which may be longer than 107 bytes.
func connect(path string) (*os.File, error) {
	fd, err := socketAt(path, unix.Connect)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// socketAt makes a socket and hands it to use with path as an address. A path
// that does not fit is named by way of a descriptor of its directory.
func socketAt(path string, use func(fd int, sa unix.Sockaddr) error) (fd int, err error) {
	sa := &unix.SockaddrUnix{Name: path}
	if len(path) > maxPath {
		dir, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return 0, err
		}
		defer unix.Close(dir)
		sa.Name = fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(path))
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := use(fd, sa); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}
