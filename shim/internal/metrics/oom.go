package metrics

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/gate"
	"github.com/gantryd/gantry/shim/internal/heritage"
	"github.com/gantryd/gantry/shim/internal/stream"
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

// OOMWatch watches for the kernel running out of memory in a cgroup, and killing.
type OOMWatch struct {
	group group         // whose memory it is
	v2    bool          // the group is of cgroup v2
	file  *os.File      // can be read when there may be news
	told  uint64        // kills that were told (cgroup v2)
	done  chan struct{} // closed when the watch has ended
}

// WatchOOM has tell called, inside g, whenever the kernel kills for want of memory,
// and at once if it has killed before.
func (c *Cgroups) WatchOOM(g *gate.Gate, tell func()) (*OOMWatch, error) {
	paths, err := c.paths()
	if err != nil {
		return nil, err
	}
	w := &OOMWatch{v2: unified(), done: make(chan struct{})}
	if w.v2 {
		w.group = paths.of(unifiedName)
		err = w.watchV2()
	} else {
		w.group = paths.of("memory")
		err = w.watchV1()
	}
	if err != nil {
		return nil, fmt.Errorf("watch memory: %w", err)
	}
	if c.OOMs() > 0 {
		tell()
	}
	go w.run(g, tell)
	return w, nil
}

// OOMState is what another process needs to go on with an OOMWatch.
type OOMState struct {
	file  int32
	told  uint64
	group string
	v2    bool
}

// Fields lists the fields of OOMState.
func (m *OOMState) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.file)
	wire.Uint(c, 2, &m.told)
	c.String(3, &m.group)
	c.Bool(4, &m.v2)
}

// State is the watch's state while its gate is closed.
func (w *OOMWatch) State(files *heritage.Files) *OOMState {
	return &OOMState{files.FD(w.file), w.told, string(w.group), w.v2}
}

// ResumeOOM goes on with the watch of st.
func ResumeOOM(st *OOMState, heir *heritage.Heir, g *gate.Gate, tell func()) *OOMWatch {
	w := &OOMWatch{group: group(st.group), v2: st.v2, file: heir.File(st.file, "oom"), told: st.told, done: make(chan struct{})}
	go w.run(g, tell)
	return w
}

// Stop ends the watch.
func (w *OOMWatch) Stop() {
	w.file.Close()
	<-w.done
}

func (w *OOMWatch) run(g *gate.Gate, tell func()) {
	defer close(w.done)
	var b [64]byte // an eventfd's number, or inotify events
	stream.Await(w.file, g, func(fd int) (ended bool) {
		for {
			switch _, err := unix.Read(fd, b[:]); {
			case err == unix.EINTR, err == nil && !w.news():
			case err == nil:
				tell()
			default:
				return err != unix.EAGAIN
			}
		}
	})
}

// watchV1 has the kernel count OOMs into an eventfd (cgroup-v1/memory, "OOM
// Control"). It counts once more when the cgroup is removed.
func (w *OOMWatch) watchV1() error {
	control, err := os.Open(filepath.Join(string(w.group), "memory.oom_control"))
	if err != nil {
		return err
	}
	defer control.Close()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	w.file = os.NewFile(uintptr(fd), "oom")
	line := fmt.Appendf(nil, "%d %d", fd, control.Fd())
	if err := os.WriteFile(filepath.Join(string(w.group), "cgroup.event_control"), line, 0); err != nil {
		return errors.Join(err, w.file.Close())
	}
	return nil
}

// watchV2 has memory.events be read whenever it changes.
func (w *OOMWatch) watchV2() error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return os.NewSyscallError("inotify_init1", err)
	}
	w.file = os.NewFile(uintptr(fd), "oom")
	file := filepath.Join(string(w.group), "memory.events")
	if _, err := unix.InotifyAddWatch(fd, file, unix.IN_MODIFY); err != nil {
		return errors.Join(&os.PathError{Op: "watch", Path: file, Err: err}, w.file.Close())
	}
	w.told = w.group.table("memory.events")["oom_kill"]
	return nil
}

// news says whether the kernel has killed since it was last asked.
func (w *OOMWatch) news() bool {
	if !w.v2 {
		return w.group.read("memory.oom_control") != ""
	}
	n := w.group.table("memory.events")["oom_kill"]
	more := n > w.told
	w.told = max(n, w.told)
	return more
}
