package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// checkHost says in one line what this machine lacks.
func checkHost() error {
	if os.Geteuid() != 0 {
		return errors.New("must run as root; try 'sudo gantryd'")
	}
	fs, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return fmt.Errorf("look for overlayfs: %w", err)
	}
	if !strings.Contains(string(fs), "\toverlay\n") {
		// A module that is not loaded yet is not listed; modprobe is how mount(2) would load it.
		if out, err := exec.Command("modprobe", "overlay").CombinedOutput(); err != nil {
			return fmt.Errorf("this kernel has no overlayfs (modprobe overlay: %s); load or enable CONFIG_OVERLAY_FS", strings.TrimSpace(string(out)))
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look for cgroups: %w", err)
	}
	if !strings.Contains(string(mounts), " - cgroup") {
		return errors.New("no cgroup filesystem is mounted; mount cgroup2 on /sys/fs/cgroup")
	}
	return nil
}

// keepDescriptors has no program that we start inherit what whoever started us
// left open: a shim would keep it for as long as its container runs.
func keepDescriptors() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) { // Linux 5.11
		return fmt.Errorf("keep descriptors from shims: %w", err)
	}
	return nil
}

// lock holds the state directory for this process: two daemons on one would
// answer for each other's containers.
func lock(state string) (unlock func(), err error) {
	name := filepath.Join(state, "gantryd.lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", state, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid := make([]byte, 16)
		n, _ := f.Read(pid)
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another gantryd (pid %s) runs on %s; stop it or choose another --state", strings.TrimSpace(string(pid[:n])), state)
		}
		return nil, fmt.Errorf("lock %s: %w", state, err)
	}
	if err := f.Truncate(0); err == nil {
		fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return func() { f.Close() }, nil
}

// listen makes a unix socket that only root, and the group docker where the
// machine has it, can open. A socket that a killed daemon left is replaced; one
// that answers is not.
func listen(path string, mode os.FileMode) (net.Listener, error) {
	if len(path) > 107 { // sun_path, unix(7)
		return nil, fmt.Errorf("listen on %s: a unix socket path has at most 107 bytes; choose a shorter --state", path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, fmt.Errorf("listen on %s: another daemon answers there", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	old := unix.Umask(0o177) // no moment in which the socket is open to all
	l, err := net.Listen("unix", path)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	if g, err := user.LookupGroup("docker"); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			err = os.Chown(path, 0, gid)
			if err != nil {
				l.Close()
				return nil, fmt.Errorf("give %s to group docker: %w", path, err)
			}
		}
	}
	if err := os.Chmod(path, mode); err != nil {
		l.Close()
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// ownDir is the directory of this program: the others of a build lie beside it.
func ownDir() string {
	exe, err := os.Executable()
	if err != nil {
		return ""
	}
	return filepath.Dir(exe)
}

// shimBinary finds the shim beside this program or in PATH.
func shimBinary() (string, error) {
	const name = "containerd-shim-gantry-v2"
	beside := filepath.Join(ownDir(), name)
	if _, err := os.Stat(beside); err == nil {
		return beside, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("find %s beside gantryd or in PATH: not there; 'make install' puts it in place", name)
	}
	return filepath.Abs(path)
}

// notify tells systemd, where it started us with Type=notify (sd_notify(3)).
func notify(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	c, err := net.Dial("unixgram", socket)
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprint(c, state)
}
