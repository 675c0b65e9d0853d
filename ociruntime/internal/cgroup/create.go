package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Vacant fails where the group is there and holds processes, which would be
// taken for the container's, or is frozen: the container's first process would
// stop on its way in, and whoever waits for it.
func (g *Group) Vacant() error {
	if len(g.Dirs) == 0 {
		return nil
	}
	pids, err := g.Pids()
	switch {
	case err != nil:
		return err
	case len(pids) > 0:
		return fmt.Errorf("container's cgroup is not empty: %d processes are in %s", len(pids), g.Dirs[0].Path)
	case g.Frozen():
		return fmt.Errorf("container's cgroup unexpectedly frozen: thaw or remove %s first", g.Dirs[0].Path)
	}
	return nil
}

// Create makes the group's directories, and what is missing above them, or
// leaves nothing behind.
func (g *Group) Create() (made []string, err error) {
	defer func() {
		if err != nil {
			for _, dir := range slices.Backward(made) {
				err = errors.Join(err, unix.Rmdir(dir))
			}
			made = nil
		}
	}()
	for _, d := range g.Dirs {
		dirs, err := makeDir(d.Path)
		made = append(made, dirs...)
		if err != nil {
			return made, fmt.Errorf("make cgroup %s: %w", d.Path, err)
		}
		if err := d.prepare(); err != nil {
			return made, fmt.Errorf("prepare cgroup %s: %w", d.Path, err)
		}
	}
	return made, nil
}

// makeDir is mkdir -p, and says what it made.
func makeDir(dir string) (made []string, err error) {
	err = unix.Mkdir(dir, 0o755)
	switch {
	case err == nil:
		return []string{dir}, nil
	case errors.Is(err, unix.EEXIST):
		return nil, nil
	case !errors.Is(err, unix.ENOENT):
		return nil, err
	}
	if made, err = makeDir(filepath.Dir(dir)); err != nil {
		return made, err
	}
	if err := unix.Mkdir(dir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return made, err
	}
	return append(made, dir), nil
}

// prepare makes a new group able to take a process.
func (d Dir) prepare() error {
	if d.V2 {
		return d.enableControllers()
	}
	if !slices.Contains(d.Controllers, "cpuset") {
		return nil
	}
	// A new group of cpuset is empty, and no process can join it.
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		if _, err := inherit(d.Path, d.Mount, file); err != nil {
			return err
		}
	}
	return nil
}

// inherit fills file from the group above where it is empty, and is what is in it.
func inherit(dir, top, file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, file))
	value := strings.TrimSpace(string(b))
	if err != nil || value != "" || dir == top {
		return value, err
	}
	if value, err = inherit(filepath.Dir(dir), top, file); err != nil {
		return "", err
	}
	return value, write(dir, file, value)
}

// enableControllers turns on every controller for the group in the groups
// above it, from the top (cgroup v2, "Enabling and Disabling"). One that cannot be
// is left out: a limit that needs it says so.
func (d Dir) enableControllers() error {
	b, err := os.ReadFile(filepath.Join(d.Mount, "cgroup.controllers"))
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(d.Mount, d.Path)
	if err != nil {
		return err
	}
	dir := d.Mount
	for _, part := range strings.Split(rel, "/") {
		enabled, err := os.ReadFile(filepath.Join(dir, subtreeControl))
		if err != nil {
			return err
		}
		on := strings.Fields(string(enabled))
		for _, c := range strings.Fields(string(b)) {
			if !slices.Contains(on, c) {
				_ = write(dir, subtreeControl, "+"+c)
			}
		}
		dir = filepath.Join(dir, part)
	}
	return nil
}

const subtreeControl = "cgroup.subtree_control"

// Remove removes the group and the groups below it. The kernel refuses while a
// process that was killed is still on its way out, so it is tried for a while.
func (g *Group) Remove() error {
	var errs []error
	for _, d := range g.Dirs {
		if err := remove(d.Path); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", d.Path, err))
		}
	}
	return errors.Join(errs...)
}

const (
	firstPause = 500 * time.Microsecond
	longest    = 5 * time.Second
)

func remove(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	deadline := time.Now().Add(longest)
	for pause := firstPause; ; pause *= 2 {
		err := walk(dir, unix.Rmdir)
		if err == nil || !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// Remove removes the groups that Create made.
func Remove(made []string) error {
	var errs []error
	for _, dir := range slices.Backward(made) {
		if err := remove(dir); err != nil {
			errs = append(errs, fmt.Errorf("remove cgroup %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// Exists says whether the group is there in any hierarchy.
func (g *Group) Exists() bool {
	return slices.ContainsFunc(g.Dirs, func(d Dir) bool {
		return unix.Access(d.Path, unix.F_OK) == nil
	})
}
