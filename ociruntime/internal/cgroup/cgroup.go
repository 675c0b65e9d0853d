// Package cgroup makes, limits, freezes, counts and removes the control groups
// of a container, in every hierarchy that is mounted: those of v1, v2, or both.
//
// Joining is not its work: writing another process's id to cgroup.procs waits
// for an RCU grace period of some ten milliseconds. On v1 the single-threaded
// child writes itself to "tasks", on v2 clone3 puts it in the group.
package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Hierarchy is one mounted tree of groups.
type Hierarchy struct {
	Controllers []string // "cpu", "cpuacct", "name=systemd"; none for v2
	Mount       string   // where it is mounted
	Root        string   // the group that is mounted there
	V2          bool
}

// Name is the hierarchy's directory below /sys/fs/cgroup in a container.
func (h Hierarchy) Name() string { return filepath.Base(h.Mount) }

// Layout is what a machine has.
type Layout struct {
	V1      []Hierarchy
	Unified *Hierarchy        // v2, alone or beside V1; nil without
	own     map[string]string // own group, by controller; "" for v2
}

// Discover reads the layout of this machine.
func Discover() (*Layout, error) {
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("discover cgroups: %w", err)
	}
	defer info.Close()
	own, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, fmt.Errorf("discover cgroups: %w", err)
	}
	defer own.Close()
	return parse(info, own)
}

// parse reads mountinfo and cgroup in the forms of proc_pid_mountinfo(5) and cgroups(7).
func parse(mountinfo, cgroup io.Reader) (*Layout, error) {
	l := &Layout{own: map[string]string{}}
	seen := map[string]bool{}
	for s := bufio.NewScanner(mountinfo); s.Scan(); {
		before, after, ok := strings.Cut(s.Text(), " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if !ok || len(b) < 5 || len(a) < 3 || (a[0] != "cgroup" && a[0] != "cgroup2") {
			continue
		}
		h := Hierarchy{Mount: unescape(b[4]), Root: unescape(b[3]), V2: a[0] == "cgroup2"}
		if !h.V2 {
			h.Controllers = controllers(a[2])
		}
		key := strings.Join(h.Controllers, ",")
		if seen[key] {
			continue
		}
		seen[key] = true
		if h.V2 {
			l.Unified = &h
		} else {
			l.V1 = append(l.V1, h)
		}
	}
	for s := bufio.NewScanner(cgroup); s.Scan(); {
		parts := strings.SplitN(s.Text(), ":", 3)
		if len(parts) < 3 {
			continue
		}
		for _, c := range strings.Split(parts[1], ",") {
			l.own[c] = parts[2]
		}
	}
	if len(l.V1) == 0 && l.Unified == nil {
		return nil, errors.New("no cgroup hierarchy is mounted")
	}
	return l, nil
}

// controllers are those named in the superblock options of a v1 mount.
func controllers(options string) []string {
	var list []string
	for _, o := range strings.Split(options, ",") {
		switch o {
		case "rw", "ro", "xattr", "clone_children", "noprefix", "favordynmods":
			continue
		}
		if strings.HasPrefix(o, "release_agent=") {
			continue
		}
		list = append(list, o)
	}
	slices.Sort(list)
	return list
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	for _, e := range [][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, e[0], e[1])
	}
	return s
}

// V2Only says whether the machine has the unified hierarchy and no other.
func (l *Layout) V2Only() bool { return len(l.V1) == 0 }

// Dir is a group in one hierarchy.
type Dir struct {
	Hierarchy
	Path string // on the host
}

// Group is the same group in every hierarchy.
type Group struct {
	Dirs []Dir
}

// Group names the container's group. An absolute path starts at the root of
// each hierarchy, a relative one at the caller's own group.
func (l *Layout) Group(path string) (*Group, error) {
	g := &Group{}
	hs := l.V1
	if l.Unified != nil {
		hs = append(slices.Clone(hs), *l.Unified)
	}
	for _, h := range hs {
		full := path
		if !filepath.IsAbs(path) {
			key := ""
			if !h.V2 {
				key = h.Controllers[0]
			}
			full = filepath.Join("/", l.own[key], path)
		}
		// Below a mount of part of the hierarchy, only that part can be reached.
		rel, err := filepath.Rel(h.Root, filepath.Clean(full))
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			rel = strings.TrimPrefix(filepath.Clean(full), "/")
		}
		dir := filepath.Join(h.Mount, rel)
		if dir == h.Mount {
			return nil, fmt.Errorf("cgroup path %q is a hierarchy's root", path)
		}
		g.Dirs = append(g.Dirs, Dir{h, dir})
	}
	return g, nil
}

// Paths is g as the state of a container keeps it: by controllers, "" for v2.
func (g *Group) Paths() map[string]string {
	m := make(map[string]string, len(g.Dirs))
	for _, d := range g.Dirs {
		m[strings.Join(d.Controllers, ",")] = d.Path
	}
	return m
}

// FromPaths undoes Paths.
func FromPaths(m map[string]string) *Group {
	g := &Group{}
	for key, path := range m {
		d := Dir{Path: path}
		if key == "" {
			d.V2 = true
		} else {
			d.Controllers = strings.Split(key, ",")
		}
		g.Dirs = append(g.Dirs, d)
	}
	slices.SortFunc(g.Dirs, func(a, b Dir) int { return strings.Compare(a.Path, b.Path) })
	return g
}

// Of is the group's directory for a v1 controller.
func (g *Group) Of(controller string) (dir string, ok bool) {
	for _, d := range g.Dirs {
		if slices.Contains(d.Controllers, controller) {
			return d.Path, true
		}
	}
	return "", false
}

// Unified is the group's directory in v2.
func (g *Group) Unified() (dir string, ok bool) {
	for _, d := range g.Dirs {
		if d.V2 {
			return d.Path, true
		}
	}
	return "", false
}

// V2Only says whether g is in v2 alone: limits are v2's then.
func (g *Group) V2Only() bool { return len(g.Dirs) == 1 && g.Dirs[0].V2 }

// Sub is a group below g, which must be there: in each hierarchy the one named for
// a controller of it, else the one named for "" where the hierarchy has that.
func (g *Group) Sub(names map[string]string) (*Group, error) {
	for c, name := range names {
		if slices.Contains(strings.Split(name, "/"), "..") {
			return nil, fmt.Errorf("bad sub cgroup path %q: `..` components are not allowed", name)
		}
		if _, ok := g.Of(c); !ok && c != "" {
			return nil, fmt.Errorf("unknown controller %q: the container has no group of it", c)
		}
	}
	s := &Group{}
	var found bool
	var missing error
	for _, d := range g.Dirs {
		name, own := names[""], d.Path
		for _, c := range d.Controllers {
			if n, ok := names[c]; ok {
				name, own = n, ""
			}
		}
		d.Path = filepath.Join(d.Path, name)
		_, err := os.Stat(d.Path)
		switch {
		case len(names) == 0:
		case err == nil:
			found = true
		case own == "":
			return nil, fmt.Errorf("before adding pid to cgroup: %w", err)
		default:
			d.Path, missing = own, err
		}
		s.Dirs = append(s.Dirs, d)
	}
	if missing != nil && !found {
		return nil, fmt.Errorf("before adding pid to cgroup: %w", missing)
	}
	return s, nil
}

// JoinFiles are the files that a child writes itself to, "0", to join on v1.
func (g *Group) JoinFiles() []string {
	var files []string
	for _, d := range g.Dirs {
		if !d.V2 {
			files = append(files, filepath.Join(d.Path, "tasks"))
		}
	}
	return files
}

// Pids are the processes of the group and of those below it.
func (g *Group) Pids() ([]int, error) {
	if len(g.Dirs) == 0 {
		return nil, errors.New("the container has no cgroup of its own")
	}
	dir, ok := g.Of("freezer")
	if !ok {
		if dir, ok = g.Unified(); !ok || !g.V2Only() {
			dir = g.Dirs[0].Path
		}
	}
	var pids []int
	err := walk(dir, func(d string) error {
		list, err := readPids(filepath.Join(d, "cgroup.procs"))
		pids = append(pids, list...)
		return err
	})
	slices.Sort(pids)
	return slices.Compact(pids), err
}

// walk calls f for dir and the groups below it, the deepest first. What vanishes
// meanwhile is passed over.
func walk(dir string, f func(string) error) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := walk(filepath.Join(dir, e.Name()), f); err != nil {
				return err
			}
		}
	}
	if err := f(dir); err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

func readPids(file string) ([]int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, f := range strings.Fields(string(b)) {
		pid := 0
		for _, c := range f {
			pid = pid*10 + int(c-'0')
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// write writes one file of a group.
func write(dir, file, value string) error {
	fd, err := unix.Open(filepath.Join(dir, file), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("write %q to cgroup file %s/%s: %w", value, dir, file, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("write %q to cgroup file %s/%s: %w", value, dir, file, err)
	}
	return nil
}
