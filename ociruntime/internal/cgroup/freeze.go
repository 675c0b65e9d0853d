package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Freeze stops every process of the group, and returns when all have stopped.
func (g *Group) Freeze() error { return g.freezer("FROZEN", "1") }

// Thaw lets them go on.
func (g *Group) Thaw() error { return g.freezer("THAWED", "0") }

const freezeDeadline = 10 * time.Second

func (g *Group) freezer(v1, v2 string) error {
	dir, file, value, done := g.freezerFiles(v1, v2)
	if dir == "" {
		return errors.New("freeze: this machine has no freezer cgroup")
	}
	deadline := time.Now().Add(freezeDeadline)
	for pause := 50 * time.Microsecond; ; pause = min(2*pause, 10*time.Millisecond) {
		// On v1 a process that forks meanwhile can escape one attempt.
		if err := write(dir, file, value); err != nil {
			return err
		}
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			_ = write(dir, file, map[string]string{"FROZEN": "THAWED", "1": "0"}[value])
			return fmt.Errorf("freeze %s: not every process stopped in %v", dir, freezeDeadline)
		}
		time.Sleep(pause)
	}
}

func (g *Group) freezerFiles(v1, v2 string) (dir, file, value string, done func() (bool, error)) {
	if d, ok := g.Of("freezer"); ok {
		return d, "freezer.state", v1, func() (bool, error) {
			b, err := os.ReadFile(filepath.Join(d, "freezer.state"))
			return strings.TrimSpace(string(b)) == v1, err
		}
	}
	if d, ok := g.Unified(); ok {
		return d, "cgroup.freeze", v2, func() (bool, error) {
			b, err := os.ReadFile(filepath.Join(d, "cgroup.events"))
			return strings.Contains(string(b), "frozen "+v2), err
		}
	}
	return "", "", "", nil
}

// Frozen says whether the group is frozen.
func (g *Group) Frozen() bool {
	if d, ok := g.Of("freezer"); ok {
		b, _ := os.ReadFile(filepath.Join(d, "freezer.state"))
		return strings.HasPrefix(string(b), "FR")
	}
	if d, ok := g.Unified(); ok {
		b, _ := os.ReadFile(filepath.Join(d, "cgroup.freeze"))
		return strings.TrimSpace(string(b)) == "1"
	}
	return false
}

// Kill sends SIGKILL to every process of the group, however fast it forks.
func (g *Group) Kill() error {
	if d, ok := g.Unified(); ok && g.V2Only() {
		if err := write(d, "cgroup.kill", "1"); !missing(err) {
			return err // Linux 5.14
		}
	}
	return g.Signal(unix.SIGKILL)
}

// Signal sends sig to every process of the group. They are frozen meanwhile, so
// that no child escapes.
func (g *Group) Signal(sig unix.Signal) error {
	frozen := g.Frozen()
	if !frozen {
		if err := g.Freeze(); err != nil && !missing(err) {
			return err
		}
	}
	pids, err := g.Pids()
	for _, pid := range pids {
		if kerr := unix.Kill(pid, sig); kerr != nil && !errors.Is(kerr, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("kill %d: %w", pid, kerr))
		}
	}
	if !frozen || sig == unix.SIGKILL {
		if terr := g.Thaw(); terr != nil && !missing(terr) {
			err = errors.Join(err, terr)
		}
	}
	if sig == unix.SIGKILL {
		err = errors.Join(err, g.thawBelow())
	}
	return err
}

// thawBelow thaws the groups below, which a container may have frozen itself: on
// v1 a process dies when it is thawed.
func (g *Group) thawBelow() error {
	top, ok := g.Of("freezer")
	if !ok {
		return nil
	}
	return walk(top, func(dir string) error { return write(dir, "freezer.state", "THAWED") })
}

// TakeBack moves a process that someone put into another group of the v1 freezer
// into g, which thaws it.
func (g *Group) TakeBack(pid int) error {
	dir, ok := g.Of("freezer")
	if !ok {
		return nil
	}
	return write(dir, "cgroup.procs", strconv.Itoa(pid))
}
