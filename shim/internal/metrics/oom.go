package metrics

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// OOMs is how many processes the kernel has killed in the cgroup for want of memory.
func (c *Cgroups) OOMs() uint64 {
	paths, err := c.paths()
	if err != nil {
		return 0
	}
	if unified() {
		return paths.of(unifiedName).table("memory.events")["oom_kill"]
	}
	return paths.of("memory").table("memory.oom_control")["oom_kill"]
}

// WatchOOM calls tell, in a goroutine of its own, whenever the kernel runs out
// of memory in the cgroup and kills, and at once if it has killed before. stop
// ends that and waits for it.
func (c *Cgroups) WatchOOM(tell func()) (stop func(), err error) {
	paths, err := c.paths()
	if err != nil {
		return nil, err
	}
	var w *oomWatch
	if unified() {
		w, err = watchV2(paths.of(unifiedName))
	} else {
		w, err = watchV1(paths.of("memory"))
	}
	if err != nil {
		return nil, fmt.Errorf("watch memory: %w", err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if c.OOMs() > 0 {
			tell()
		}
		w.run(tell)
	}()
	return func() {
		w.file.Close()
		<-done
	}, nil
}

// oomWatch is a descriptor that can be read when there may be news.
type oomWatch struct {
	file *os.File
	news func() bool // says whether there are
}

func (w *oomWatch) run(tell func()) {
	var b [64]byte // an eventfd's number, or inotify events
	for {
		if _, err := w.file.Read(b[:]); err != nil {
			return
		}
		if w.news() {
			tell()
		}
	}
}

// watchV1 has the kernel count OOMs into an eventfd (cgroup-v1/memory, "OOM
// Control"). It counts once more when the cgroup is removed.
func watchV1(g group) (*oomWatch, error) {
	control, err := os.Open(filepath.Join(string(g), "memory.oom_control"))
	if err != nil {
		return nil, err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	f := os.NewFile(uintptr(fd), "oom")
	line := fmt.Appendf(nil, "%d %d", fd, control.Fd())
	if err := os.WriteFile(filepath.Join(string(g), "cgroup.event_control"), line, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &oomWatch{f, func() bool { return g.read("memory.oom_control") != "" }}, nil
}

// watchV2 reads memory.events whenever it changes.
func watchV2(g group) (*oomWatch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "oom")
	file := filepath.Join(string(g), "memory.events")
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
		return nil, errors.Join(&os.PathError{Op: "watch", Path: file, Err: err}, f.Close())
	}
	told := g.table("memory.events")["oom_kill"]
	return &oomWatch{f, func() bool {
		n := g.table("memory.events")["oom_kill"]
		more := n > told
		told = max(n, told)
		return more
	}}, nil
}
