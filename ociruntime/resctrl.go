package ociruntime

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// rdt are the groups of the resctrl filesystem that a container is in (kernel,
// Documentation/filesystems/resctrl.rst; runtime-spec, config-linux, "IntelRdt").
type rdt struct {
	Class   string `json:"class"`             // directory of the class of service
	Monitor string `json:"monitor,omitempty"` // of the monitoring group; "" without
	Made    bool   `json:"made,omitempty"`    // the class is there for this container alone
}

// validateIntelRdt checks what is one line each in schemata.
func validateIntelRdt(r *specs.LinuxIntelRdt) error {
	if r == nil {
		return nil
	}
	if r.ClosID != "/" && (r.ClosID == "." || r.ClosID == ".." || strings.ContainsAny(r.ClosID, "/\n\x00")) {
		return fmt.Errorf("linux.intelRdt.closID: %q is no name of a directory", r.ClosID)
	}
	if i := slices.IndexFunc(schemata(r), func(l string) bool { return strings.Contains(l, "\n") }); i >= 0 {
		return fmt.Errorf("linux.intelRdt: %q is more than one line", schemata(r)[i])
	}
	if r.MemBwSchema != "" && !strings.HasPrefix(r.MemBwSchema, "MB:") {
		return fmt.Errorf("linux.intelRdt.memBwSchema: MB: is due at the beginning of %q", r.MemBwSchema)
	}
	return nil
}

// schemata are the lines to write, in the order of the specification.
func schemata(r *specs.LinuxIntelRdt) []string {
	var lines []string
	for _, l := range append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...) {
		if l != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// findResctrl is where the resctrl filesystem is mounted.
func findResctrl() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(before); strings.HasPrefix(after, "resctrl ") && len(fields) > 4 {
			return fields[4], nil
		}
	}
	return "", errors.Join(errors.New("linux.intelRdt: no resctrl filesystem is mounted"), lines.Err())
}

// groupsOf are the groups that r asks for, below root.
func groupsOf(root, id string, r *specs.LinuxIntelRdt) rdt {
	name := r.ClosID
	if name == "" {
		name = id
	}
	g := rdt{Class: filepath.Join(root, name), Made: r.ClosID == ""}
	if r.EnableMonitoring {
		g.Monitor = filepath.Join(g.Class, "mon_groups", id)
	}
	return g
}

// join makes the groups as far as they are to be made, and puts pid there.
func (g rdt) join(r *specs.LinuxIntelRdt, pid int) (err error) {
	made, err := g.makeClass(r)
	if err != nil {
		return err
	}
	if made {
		defer errs.Undo(&err, func() error { return unix.Rmdir(g.Class) })
	}
	groups := []string{g.Class}
	if g.Monitor != "" {
		if err := os.Mkdir(g.Monitor, 0o755); err != nil {
			return fmt.Errorf("linux.intelRdt.enableMonitoring: %w", err)
		}
		defer errs.Undo(&err, func() error { return unix.Rmdir(g.Monitor) })
		groups = append(groups, g.Monitor)
	}
	for _, dir := range groups {
		if err := writeGroup(dir, "tasks", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// makeClass makes the class of service and sets it, or sees that the one that
// is there already is as the bundle says.
func (g rdt) makeClass(r *specs.LinuxIntelRdt) (made bool, err error) {
	lines := schemata(r)
	if g.Made || len(lines) > 0 {
		err = os.Mkdir(g.Class, 0o755)
		made = err == nil
		if err != nil && (g.Made || !errors.Is(err, os.ErrExist)) {
			return false, fmt.Errorf("linux.intelRdt: %w", err)
		}
	} else if _, err := os.Stat(g.Class); err != nil {
		return false, fmt.Errorf("linux.intelRdt.closID: %w", err)
	}
	if !made {
		return false, g.matches(lines)
	}
	defer errs.Undo(&err, func() error { return unix.Rmdir(g.Class) })
	if len(lines) > 0 {
		return true, writeGroup(g.Class, "schemata", strings.Join(lines, "\n")+"\n")
	}
	return true, nil
}

// matches says whether a class has these schemata.
func (g rdt) matches(lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(g.Class, "schemata"))
	if err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	has := map[string]bool{}
	for l := range strings.Lines(string(data)) {
		kind, values, _ := strings.Cut(strings.TrimSpace(l), ":")
		for v := range strings.SplitSeq(values, ";") {
			has[kind+":"+strings.TrimSpace(v)] = true
		}
	}
	for _, l := range lines {
		kind, values, _ := strings.Cut(l, ":")
		for v := range strings.SplitSeq(values, ";") {
			if !has[kind+":"+strings.TrimSpace(v)] {
				return fmt.Errorf("linux.intelRdt: class %s is there, and is not %q", filepath.Base(g.Class), l)
			}
		}
	}
	return nil
}

// writeGroup writes a file of a group, which must be there.
func writeGroup(dir, file, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("linux.intelRdt: %w", err)
	}
	return nil
}

// remove removes what was made for the container alone, and is empty now.
func (g rdt) remove() error {
	dirs := []string{g.Monitor}
	if g.Made {
		dirs = append(dirs, g.Class)
	}
	for _, dir := range dirs {
		if dir == "" {
			continue
		}
		if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove %s: %w", dir, err)
		}
	}
	return nil
}
