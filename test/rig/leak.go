package rig

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// state is what programs of this field tend to leave on a machine. Processes are
// not here: whoever is left in the cgroups of the tests is found by the outer
// process; links and rules are looked for in each Host.
type state map[string]bool

// survey lists mounts, cgroups of containers, and files in /run.
func survey() (state, error) {
	s := state{}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 {
			s["mount "+f[4]] = true
		}
	}
	hierarchies, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	for _, h := range hierarchies {
		// The groups at the top are those in which a daemon puts its containers'.
		groups, err := filepath.Glob(filepath.Join(h.dir, "*/*/cgroup.procs"))
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			s["cgroup "+filepath.Dir(g)] = true
		}
	}
	// A file that vanishes during the walk is no leak.
	_ = filepath.WalkDir("/run", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && path != "/run/xtables.lock" {
			s["file "+path] = true
		}
		return nil
	})
	return s, nil
}

// left says what is there now that was not there before. What ends by itself has
// half a minute: a namespace is taken down by the kernel after its last process.
func (s state) left() []string {
	var left []string
	for range 300 {
		now, err := survey()
		if err != nil {
			return []string{err.Error()}
		}
		left = nil
		for thing := range now {
			if !s[thing] {
				left = append(left, thing)
			}
		}
		if len(left) == 0 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return left
}
