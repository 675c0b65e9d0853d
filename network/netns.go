package network

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// namespace is a network namespace held open, with an rtnetlink socket that was
// opened in it. Whoever has it closes it.
type namespace struct {
	fd    int
	links *netlink.Handle
}

func (ns *namespace) close() {
	if ns == nil {
		return
	}
	ns.links.Close()
	unix.Close(ns.fd)
}

// newNamespace makes a namespace whose loopback is up. Nothing pins it: it ends
// when it is closed, and so does all that is in it, also when this process dies.
func newNamespace() (*namespace, error) {
	ns := &namespace{fd: -1}
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare network namespace: %w", err)
		}
		if ns.fd, err = unix.Open(threadNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open network namespace: %w", err)
		}
		defer errs.Undo(&err, func() error { return unix.Close(ns.fd) })
		if err := tune(); err != nil {
			return err
		}
		ns.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make network namespace: %w", err)
	}
	if err := ns.links.LinkSetUp(byIndex(loopbackIndex)); err != nil {
		ns.close()
		return nil, fmt.Errorf("make network namespace: set loopback up: %w", err)
	}
	return ns, nil
}

// loopbackIndex is the interface index of lo in every namespace
// (include/net/net_namespace.h, LOOPBACK_IFINDEX).
const loopbackIndex = 1

const threadNamespace = "/proc/thread-self/ns/net"

// tune sets what a container's namespace has differently from the kernel's
// defaults. A container may bind low ports and ping without capabilities, as
// nobody else is in its namespace; new interfaces have no IPv6 unless they are
// given an address of it.
func tune() error {
	return errors.Join(
		sysctl("net/ipv4/ip_unprivileged_port_start", "0"),
		sysctl("net/ipv4/ping_group_range", "0 2147483647"),
		sysctlIfThere("net/ipv6/conf/default/disable_ipv6", "1"),
	)
}

// openNamespace opens the namespace that is pinned at path.
func openNamespace(path string) (_ *namespace, err error) {
	ns := &namespace{}
	if ns.fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer errs.Undo(&err, func() error { return unix.Close(ns.fd) })
	err = ns.inside(func() (err error) {
		ns.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return ns, nil
}

// inside runs f on a thread that is in the namespace.
func (ns *namespace) inside(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(ns.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on an operating system thread of its own, which may change its
// network namespace: it goes home afterwards, and ends if it cannot.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// A goroutine that ends while locked takes its thread with it.
		runtime.LockOSThread()
		home, err := unix.Open(threadNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open own network namespace: %w", err)
			return
		}
		err = f()
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		unix.Close(home)
		done <- err
	}()
	return <-done
}

// pin binds the namespace to path, so that it stays when this process ends.
func (ns *namespace) pin(path string) (err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return fmt.Errorf("pin network namespace: %w", err)
	}
	f.Close()
	defer errs.Undo(&err, func() error { return os.Remove(path) })
	if err := unix.Mount("/proc/self/fd/"+strconv.Itoa(ns.fd), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin network namespace at %s: %w", path, err)
	}
	return nil
}

// unpin takes away what pin made, whole or half; nothing there is no error.
func unpin(path string) error {
	err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unpin network namespace %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("unpin network namespace: %w", err)
	}
	return nil
}

// pinned says whether a namespace is bound to path.
func pinned(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// sysctl writes a kernel parameter of the calling thread's network namespace.
func sysctl(name, value string) error {
	fd, err := unix.Open("/proc/sys/"+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set sysctl %s: %w", name, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("set sysctl %s to %s: %w", name, value, err)
	}
	return nil
}

// sysctlIfThere is sysctl for parameters that a kernel may lack.
func sysctlIfThere(name, value string) error {
	if err := sysctl(name, value); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
