package ociruntime

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// explain puts an error of the child's that is about the user's program in the
// words that users of containers know, and of one kind of errdefs. Every other
// error stays as it is.
func explain(err error, p *specs.Process, rootfs string, spec *specs.Spec) error {
	var step *StepError
	if !errors.As(err, &step) {
		return err
	}
	name := p.Args[0]
	switch {
	case step.Name == lookInPath:
		return errs.Because(errdefs.ErrNotFound, "exec: %q: executable file not found in $PATH", name)
	case step.Name == findProgram && errors.Is(err, unix.ENOENT):
		return errs.Because(errdefs.ErrNotFound, "exec: %q: stat %s: no such file or directory", name, name)
	case step.Name == findProgram && errors.Is(err, unix.EISDIR):
		return errs.Because(errdefs.ErrPermissionDenied, "exec: %q: is a directory: permission denied", name)
	case step.Name == findProgram:
		return errs.Because(kindOf(step.Errno), "exec: %q: %w", name, step.Errno)
	case step.Name == enterCwd && errors.Is(err, unix.ENOENT):
		return errs.Because(errdefs.ErrNotFound, "chdir to cwd (%q) set in config.json failed: no such file or directory", p.Cwd)
	case step.Name == enterCwd:
		return errs.Because(kindOf(step.Errno), "chdir to cwd (%q) set in config.json failed: %w", p.Cwd, step.Errno)
	case strings.HasPrefix(step.Name, "mount ") && errors.Is(err, unix.ELOOP):
		return fmt.Errorf("%s must be mounted on ordinary directory, and it is a symlink in the rootfs: %w", step.Path, err)
	case step.Name == setAppArmor && step.Call == "openat2" && errors.Is(err, unix.ENOENT):
		return errs.Because(errdefs.ErrInvalidArgument, "process.apparmorProfile %q: this kernel has no AppArmor, or has it switched off", p.ApparmorProfile)
	case step.Name == setAppArmor && errors.Is(err, unix.ENOENT):
		return errs.Because(errdefs.ErrInvalidArgument, "process.apparmorProfile: no profile %q is loaded", p.ApparmorProfile)
	case step.Name == setSELinux && errors.Is(err, unix.EINVAL):
		return errs.Because(errdefs.ErrInvalidArgument, "process.selinuxLabel: %q is no label of the policy that is loaded", p.SelinuxLabel)
	case step.Name == setScheduler && errors.Is(err, unix.EPERM) && fewerCPUs(spec):
		return fmt.Errorf("process scheduler can't be used together with AllowedCPUs, linux.resources.cpu.cpus: %w", err)
	case step.Name == execute:
		return explainExecve(step.Errno, p, rootfs, spec.Mounts)
	}
	return err
}

// fewerCPUs says whether the container is kept to some processors: a deadline
// cannot be (sched_setattr(2)).
func fewerCPUs(spec *specs.Spec) bool {
	r := spec.Linux.Resources
	return r != nil && r.CPU != nil && r.CPU.Cpus != ""
}

// kindOf is the kind of error that an errno of the user's program is.
func kindOf(errno error) error {
	switch {
	case errors.Is(errno, unix.ENOENT), errors.Is(errno, unix.ENOTDIR):
		return errdefs.ErrNotFound
	case errors.Is(errno, unix.EACCES), errors.Is(errno, unix.EPERM):
		return errdefs.ErrPermissionDenied
	}
	return errdefs.ErrInvalidArgument
}

// explainExecve says why a program that is there cannot be executed. The kernel
// says ENOENT for a missing interpreter, and ENOEXEC for much.
func explainExecve(errno error, p *specs.Process, rootfs string, mounts []specs.Mount) error {
	name, head := p.Args[0], programHead(p, rootfs, mounts)
	reason := ""
	switch {
	case errors.Is(errno, unix.ENOENT):
		if i := interpreter(head); i != "" {
			reason = fmt.Sprintf(" (its interpreter %s is not there)", i)
		}
	case errors.Is(errno, unix.ENOEXEC):
		reason = formatFault(head)
	}
	return errs.Because(kindOf(errno), "exec %s: %w%s", name, errno, reason)
}

// programHead is how the user's program begins, as far as it can be found in
// the rootfs and in what is mounted on it from the host.
func programHead(p *specs.Process, rootfs string, mounts []specs.Mount) []byte {
	candidates := []string{path.Join("/", p.Cwd, p.Args[0])}
	if path.IsAbs(p.Args[0]) {
		candidates = []string{path.Clean(p.Args[0])}
	}
	if !strings.Contains(p.Args[0], "/") {
		candidates = nil
		for _, dir := range strings.Split(searchPath(p), ":") {
			candidates = append(candidates, path.Join(dir, p.Args[0]))
		}
	}
	for _, file := range candidates {
		top, below := whereIs(file, rootfs, mounts)
		f, err := openBelow(top, below)
		if err != nil {
			continue
		}
		defer f.Close()
		if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
			return nil
		}
		const most = 64 << 10
		head := make([]byte, most)
		n, _ := f.Read(head)
		return head[:n]
	}
	return nil
}

// whereIs is the directory, or the file, of the host that file of the container
// lies in, and its path below that.
func whereIs(file, rootfs string, mounts []specs.Mount) (top, below string) {
	top, below = rootfs, file
	for _, m := range mounts {
		rest, ok := strings.CutPrefix(file, path.Clean("/"+m.Destination))
		if ok && (rest == "" || rest[0] == '/') {
			top, below = m.Source, rest
		}
	}
	return top, below
}

// openBelow opens a file below top, which is the root of its symlinks.
func openBelow(top, below string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY
	if below == "" {
		return os.OpenFile(top, flags, 0)
	}
	root, err := unix.Open(top, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := openIn(root, below, flags)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), below), nil
}

// interpreter is the program that must be there to run one that begins so.
func interpreter(head []byte) string {
	if line, ok := bytes.CutPrefix(head, []byte("#!")); ok {
		line, _, _ = bytes.Cut(line, []byte("\n"))
		if strings.HasSuffix(string(line), "\r") {
			return fmt.Sprintf("%q", strings.TrimSpace(string(line))+"\r")
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		return first
	}
	return elfInterpreter(head)
}

// formatFault says what is wrong with a program that begins so.
func formatFault(head []byte) string {
	const identSize = 20
	switch {
	case len(head) == 0:
		return " (the file is empty)"
	case !bytes.HasPrefix(head, []byte(elfMagic)):
		return " (the file is no ELF program and does not begin with #!)"
	case len(head) < identSize:
		return " (the file is cut short)"
	}
	if machine := binary.LittleEndian.Uint16(head[18:]); machine != elfMachine {
		return fmt.Sprintf(" (the file is for %s, this machine is %s)", machineName(machine), machineName(elfMachine))
	}
	return ""
}
