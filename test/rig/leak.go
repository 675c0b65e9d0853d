package rig

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// state is what programs of this field tend to leave on a machine.
type state map[string]bool

// survey lists mounts, links, nft tables, cgroups and processes of this test.
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
	links, err := os.ReadDir("/sys/class/net")
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		s["link "+l.Name()] = true
	}
	if out, err := exec.Command("nft", "list", "tables").Output(); err == nil {
		for line := range strings.Lines(string(out)) {
			s["nft "+strings.TrimSpace(line)] = true
		}
	}
	// A cgroup that vanishes during the walk is no leak.
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			s["cgroup "+path] = true
		}
		return nil
	})
	procs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil, err
	}
	for _, p := range procs {
		env, err := os.ReadFile(p)
		if err != nil || !bytes.Contains(env, []byte(token)) {
			continue
		}
		dir := filepath.Dir(p)
		if dir == fmt.Sprintf("/proc/%d", os.Getpid()) {
			continue
		}
		cmdline, _ := os.ReadFile(dir + "/cmdline")
		s[fmt.Sprintf("process %s %s", filepath.Base(dir), bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '}))] = true
	}
	return s, nil
}

// left says what is there now that was not there before. What ends by itself has
// five seconds: a namespace is taken down by the kernel after its last process.
func (s state) left() []string {
	var left []string
	for range 50 {
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
