package ociruntime

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/internal/errs"
)

// validate refuses what cannot be carried out, by the name of its field.
func validate(s *specs.Spec) error {
	for _, check := range []func(*specs.Spec) error{validateVersion, validateRoot, validateLinux, validateMounts} {
		if err := check(s); err != nil {
			return errs.Because(errdefs.ErrInvalidArgument, "config.json: %w", err)
		}
	}
	if err := validateProcess(s.Process); err != nil {
		return errs.Because(errdefs.ErrInvalidArgument, "config.json: %w", err)
	}
	return nil
}

func validateVersion(s *specs.Spec) error {
	if s.Version == "" {
		return errors.New("ociVersion is missing")
	}
	if !strings.HasPrefix(s.Version, "1.") {
		return fmt.Errorf("ociVersion %q: versions 1.x are understood", s.Version)
	}
	return nil
}

func validateRoot(s *specs.Spec) error {
	if s.Root == nil || s.Root.Path == "" {
		return errors.New("root.path is missing")
	}
	return nil
}

func validateLinux(s *specs.Spec) error {
	if s.Linux == nil {
		return errors.New("linux is missing")
	}
	seen := map[specs.LinuxNamespaceType]bool{}
	for i, n := range s.Linux.Namespaces {
		if cloneFlag[n.Type] == 0 {
			return fmt.Errorf("linux.namespaces[%d]: type %q is unknown", i, n.Type)
		}
		if seen[n.Type] {
			return fmt.Errorf("linux.namespaces[%d]: %s is there twice", i, n.Type)
		}
		seen[n.Type] = true
	}
	if !seen[specs.UTSNamespace] && (s.Hostname != "" || s.Domainname != "") {
		return errors.New("hostname: it needs a uts namespace in linux.namespaces")
	}
	for key, value := range s.Linux.Sysctl {
		switch {
		case sysctlPath(key) == "kernel/hostname" && s.Hostname != "" && s.Hostname != value:
			return fmt.Errorf("linux.sysctl: %q is not allowed as it conflicts with hostname %q", key, s.Hostname)
		case sysctlPath(key) == "kernel/domainname" && s.Domainname != "" && s.Domainname != value:
			return fmt.Errorf("linux.sysctl: %q is not allowed as it conflicts with domainname %q", key, s.Domainname)
		}
	}
	if (len(s.Linux.UIDMappings) > 0 || len(s.Linux.GIDMappings) > 0) && !seen[specs.UserNamespace] {
		return errors.New("linux.uidMappings: it needs a user namespace in linux.namespaces")
	}
	for i, n := range s.Linux.Namespaces {
		if n.Type == specs.UserNamespace && n.Path == "" && (len(s.Linux.UIDMappings) == 0 || len(s.Linux.GIDMappings) == 0) {
			return fmt.Errorf("linux.namespaces[%d]: a new user namespace needs linux.uidMappings and gidMappings", i)
		}
	}
	if len(s.Linux.TimeOffsets) > 0 && !seen[specs.TimeNamespace] {
		return errors.New("linux.timeOffsets: it needs a time namespace in linux.namespaces")
	}
	if p := s.Linux.RootfsPropagation; p != "" {
		if _, ok := propagationOptions[p]; !ok {
			return fmt.Errorf("linux.rootfsPropagation: %q is unknown", p)
		}
	}
	for _, list := range [][]string{s.Linux.MaskedPaths, s.Linux.ReadonlyPaths} {
		if i := slices.IndexFunc(list, func(p string) bool { return !filepath.IsAbs(p) }); i >= 0 {
			return fmt.Errorf("linux.maskedPaths, readonlyPaths: %q is not absolute", list[i])
		}
	}
	if err := validateNetDevices(s.Linux); err != nil {
		return err
	}
	return validateIntelRdt(s.Linux.IntelRdt)
}

func validateMounts(s *specs.Spec) error {
	for i, m := range s.Mounts {
		if m.Destination == "" {
			return fmt.Errorf("mounts[%d]: destination is missing", i)
		}
	}
	return nil
}

// validateProcess checks what a container's first process and later ones share.
func validateProcess(p *specs.Process) error {
	if p == nil {
		return errors.New("process is missing")
	}
	if len(p.Args) == 0 || p.Args[0] == "" {
		return errors.New("process.args is empty")
	}
	if !filepath.IsAbs(p.Cwd) {
		return fmt.Errorf("process.cwd: %q is not absolute", p.Cwd)
	}
	for _, list := range [][]string{p.Args, p.Env, {p.Cwd}} {
		if i := slices.IndexFunc(list, func(s string) bool { return strings.Contains(s, "\x00") }); i >= 0 {
			return fmt.Errorf("process: %q has a zero byte", list[i])
		}
	}
	seen := map[string]bool{}
	for i, r := range p.Rlimits {
		if _, ok := rlimitNumber[r.Type]; !ok {
			return fmt.Errorf("process.rlimits[%d]: type %q is unknown", i, r.Type)
		}
		if seen[r.Type] {
			return fmt.Errorf("process.rlimits[%d]: %s is there twice", i, r.Type)
		}
		seen[r.Type] = true
		if r.Soft > r.Hard {
			return fmt.Errorf("process.rlimits[%d]: %s has soft limit %d above hard limit %d", i, r.Type, r.Soft, r.Hard)
		}
	}
	return validateScheduler(p.Scheduler)
}

// validateScheduler says what of SCHED_DEADLINE the kernel only calls invalid
// (sched(7)).
func validateScheduler(s *specs.Scheduler) error {
	if s == nil || s.Policy != specs.SchedDeadline {
		return nil
	}
	const shortest, longest = 1 << 10, 1<<63 - 1
	problem := ""
	switch {
	case s.Runtime == 0:
		problem = "requires `runtime`, greater than 0"
	case s.Deadline == 0:
		problem = "requires `deadline`"
	case s.Runtime < shortest || s.Runtime > longest:
		problem = fmt.Sprintf("runtime %d must be between %d and %d", s.Runtime, shortest, uint64(longest))
	case s.Runtime > s.Deadline:
		problem = fmt.Sprintf("runtime %d must be <= deadline %d", s.Runtime, s.Deadline)
	case s.Period != 0 && s.Deadline > s.Period:
		problem = fmt.Sprintf("deadline %d must be <= period %d", s.Deadline, s.Period)
	default:
		return nil
	}
	return fmt.Errorf("process.scheduler: sched_setattr: `SCHED_DEADLINE` %s", problem)
}

// validateID checks that an id is a plain file name.
func validateID(id string) error {
	ok := id != "" && id[0] != '.' && len(id) <= 255 && !strings.ContainsFunc(id, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-+.", r))
	})
	if !ok {
		return errs.Because(errdefs.ErrInvalidArgument, "container ID %q: invalid character, or none: letters, digits and _ - + . are allowed, and no . at the beginning", id)
	}
	return nil
}
