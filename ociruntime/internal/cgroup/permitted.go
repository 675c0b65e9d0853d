package cgroup

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Permitted is g in the hierarchies where this process may make it, and may put
// a process of its own group into it.
func (l *Layout) Permitted(g *Group) *Group {
	p := &Group{}
	for _, d := range g.Dirs {
		dir := d.Path
		for dir != d.Mount && unix.Access(dir, unix.F_OK) != nil {
			dir = filepath.Dir(dir)
		}
		if unix.Access(dir, unix.W_OK) != nil || d.V2 && !l.mayMove(d) {
			continue
		}
		p.Dirs = append(p.Dirs, d)
	}
	return p
}

// mayMove says whether a process can be moved from the own group to d: who does
// must be able to write to cgroup.procs of the group that both lie in (cgroup v2,
// "Delegation Containment").
func (l *Layout) mayMove(d Dir) bool {
	rel, err := filepath.Rel(d.Root, l.own[""])
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return false
	}
	common := filepath.Join(d.Mount, rel)
	for common != d.Mount && common != d.Path && !strings.HasPrefix(d.Path, common+"/") {
		common = filepath.Dir(common)
	}
	return unix.Access(filepath.Join(common, "cgroup.procs"), unix.W_OK) == nil
}

// Rel is the path of d in its hierarchy.
func (l *Layout) Rel(d Dir) (string, bool) {
	hs := l.V1
	if l.Unified != nil {
		hs = append(hs[:len(hs):len(hs)], *l.Unified)
	}
	for _, h := range hs {
		if rel, err := filepath.Rel(h.Mount, d.Path); err == nil && filepath.IsLocal(rel) && h.V2 == d.V2 {
			return filepath.Join(h.Root, rel), true
		}
	}
	return "", false
}

// Restricted says that this process is an ordinary user, or the root of a user
// namespace.
func Restricted() bool {
	if os.Geteuid() != 0 {
		return true
	}
	f, err := os.Open("/proc/self/uid_map")
	if err != nil {
		return false // a kernel without user namespaces
	}
	defer f.Close()
	const line = 64
	first, _ := io.ReadAll(io.LimitReader(f, line))
	return !slices.Equal(strings.Fields(string(first)), []string{"0", "0", "4294967295"})
}
