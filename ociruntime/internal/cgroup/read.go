package cgroup

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Files reads the files of one directory. What is not there, or not a number,
// reads as nothing: kernels differ in what they count.
type Files struct{ dir string }

// Files are those of a v1 controller; none where the machine has not got it.
func (g *Group) Files(controller string) Files {
	dir, _ := g.Of(controller)
	return Files{dir}
}

// UnifiedFiles are those of v2.
func (g *Group) UnifiedFiles() Files {
	dir, _ := g.Unified()
	return Files{dir}
}

// Text is a file without the last newline.
func (f Files) Text(name string) string {
	if f.dir == "" {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(f.dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\n")
}

// Lines are the lines of a file, each cut into fields.
func (f Files) Lines(name string) [][]string {
	var lines [][]string
	for _, line := range strings.Split(f.Text(name), "\n") {
		if fields := strings.Fields(line); len(fields) > 0 {
			lines = append(lines, fields)
		}
	}
	return lines
}

// Number is a file of one number; "max" is the greatest.
func (f Files) Number(name string) uint64 { return Number(f.Text(name)) }

// Numbers is a file of a name and a number on each line.
func (f Files) Numbers(name string) map[string]uint64 {
	m := map[string]uint64{}
	for _, l := range f.Lines(name) {
		if len(l) == 2 {
			m[l[0]] = Number(l[1])
		}
	}
	return m
}

// Glob are the names of files that match.
func (f Files) Glob(pattern string) []string {
	if f.dir == "" {
		return nil
	}
	names, _ := filepath.Glob(filepath.Join(f.dir, pattern))
	for i, n := range names {
		names[i] = filepath.Base(n)
	}
	return names
}

// Number reads a number as cgroup files have it.
func Number(s string) uint64 {
	s = strings.TrimSpace(s)
	if s == "max" {
		return math.MaxUint64
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return n
	}
	return 0 // also for a counter that is momentarily below zero
}
