package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OOM is a descriptor that becomes readable when the kernel killed a process of
// the group for want of memory: an eventfd of memory.oom_control on v1, an
// inotify of memory.events on v2 (which also tells of other events).
func (g *Group) OOM() (*os.File, error) {
	if dir, ok := g.Of("memory"); ok {
		return oomV1(dir)
	}
	dir, ok := g.Unified()
	if !ok {
		return nil, errors.New("watch for OOM: this machine has no memory cgroup")
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch for OOM: inotify_init1: %w", err)
	}
	file := filepath.Join(dir, "memory.events")
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch for OOM: inotify_add_watch %s: %w", file, err)
	}
	return os.NewFile(uintptr(fd), file), nil
}

func oomV1(dir string) (*os.File, error) {
	file := filepath.Join(dir, "memory.oom_control")
	control, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("watch for OOM: %w", err)
	}
	defer control.Close()
	event, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch for OOM: eventfd: %w", err)
	}
	if err := write(dir, "cgroup.event_control", fmt.Sprintf("%d %d", event, control.Fd())); err != nil {
		unix.Close(event)
		return nil, fmt.Errorf("watch for OOM: %w", err)
	}
	return os.NewFile(uintptr(event), file), nil
}
