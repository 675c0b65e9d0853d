package ociruntime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
)

// CheckpointOptions say how [Container.Checkpoint] and [Restore] use CRIU.
type CheckpointOptions struct {
	Criu       string // the program; "criu" in PATH when empty
	ImagePath  string // where the images are
	WorkPath   string // where CRIU's logs go; ImagePath when empty
	ParentPath string // images of an earlier PreDump, relative to ImagePath

	LeaveRunning   bool   // the container goes on after the checkpoint
	PreDump        bool   // write memory only, while the container goes on
	TCPEstablished bool   // keep connections
	ExtUnixSockets bool   // keep unix sockets whose other end is outside
	ShellJob       bool   // keep the session and terminal of the caller
	FileLocks      bool   // keep file locks
	AutoDedup      bool   // drop what a later image has again
	EmptyNetwork   bool   // leave out what the network namespace holds
	ManageCgroups  string // "soft" (when empty), "full", "strict" or "ignore"
}

// descriptorsFile keeps, beside CRIU's images, what the standard streams were.
const descriptorsFile = "descriptors.json"

// Checkpoint writes the processes of the container to files. Without
// LeaveRunning or PreDump they are gone afterwards, and the container is stopped.
func (c *Container) Checkpoint(ctx context.Context, o CheckpointOptions) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.must("checkpoint", Running, Paused); err != nil {
		return err
	}
	if err := o.prepare(); err != nil {
		return err
	}
	spec, err := c.Spec()
	if err != nil {
		return err
	}
	verb, args := "dump", []string{"--tree", strconv.Itoa(c.Pid), "--root", c.rec.Rootfs}
	if o.PreDump {
		verb = "pre-dump"
	} else if freezer := c.freezerDir(); freezer != "" {
		args = append(args, "--freeze-cgroup", freezer)
	}
	if o.LeaveRunning {
		args = append(args, "--leave-running")
	}
	if o.PreDump || o.ParentPath != "" {
		args = append(args, "--track-mem")
	}
	if o.ParentPath != "" {
		args = append(args, "--prev-images-dir", o.ParentPath)
	}
	mounts, err := externalMounts(c.Pid, spec)
	if err != nil {
		return err
	}
	for _, at := range mounts {
		args = append(args, "--external", "mnt["+at+"]:"+at)
	}
	if args, err = c.externalNamespaces(args, spec); err != nil {
		return err
	}
	if !o.PreDump {
		if err := o.keepDescriptors(c.Pid); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, o.Criu, append([]string{verb}, append(args, o.args(verb)...)...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return o.explain(verb, err, out)
	}
	return nil
}

// prepare makes the directories, and the paths absolute.
func (o *CheckpointOptions) prepare() (err error) {
	if o.Criu == "" {
		o.Criu = "criu"
	}
	if o.ImagePath, err = filepath.Abs(o.ImagePath); err != nil {
		return err
	}
	if o.WorkPath == "" {
		o.WorkPath = o.ImagePath
	}
	if o.WorkPath, err = filepath.Abs(o.WorkPath); err != nil {
		return err
	}
	if o.ParentPath != "" && filepath.IsAbs(o.ParentPath) {
		return fmt.Errorf("parent path %s: it must be relative to the image path: %w", o.ParentPath, errdefs.ErrInvalidArgument)
	}
	switch o.ManageCgroups {
	case "":
		o.ManageCgroups = "soft"
	case "soft", "full", "strict", "ignore":
	default:
		return fmt.Errorf("cgroups mode %q: soft, full, strict and ignore are understood: %w", o.ManageCgroups, errdefs.ErrInvalidArgument)
	}
	for _, dir := range []string{o.ImagePath, o.WorkPath} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the directory of a checkpoint: %w", err)
		}
	}
	return nil
}

// args are the arguments of CRIU that dump and restore share.
func (o *CheckpointOptions) args(verb string) []string {
	args := []string{
		"--images-dir", o.ImagePath, "--work-dir", o.WorkPath, "--log-file", verb + ".log", "-v4",
		"--manage-cgroups=" + o.ManageCgroups,
	}
	for _, f := range []struct {
		on   bool
		flag string
	}{
		{o.TCPEstablished, "--tcp-established"},
		{o.ExtUnixSockets, "--ext-unix-sk"},
		{o.ShellJob, "--shell-job"},
		{o.FileLocks, "--file-locks"},
		{o.AutoDedup, "--auto-dedup"},
	} {
		if f.on {
			args = append(args, f.flag)
		}
	}
	if o.EmptyNetwork {
		args = append(args, "--empty-ns", "net")
	}
	return args
}

// explain is CRIU's error in its own words: the last two that its log has before
// it says that it failed. Earlier ones need not have mattered.
func (o *CheckpointOptions) explain(verb string, err error, out []byte) error {
	file := filepath.Join(o.WorkPath, verb+".log")
	log, _ := os.ReadFile(file)
	said := []string{strings.TrimSpace(string(out))}
	for line := range strings.Lines(string(log)) {
		if _, text, ok := strings.Cut(line, "Error "); ok && !strings.Contains(text, "FAILED") {
			said = append(said, strings.TrimSpace(text))
		}
	}
	return fmt.Errorf("criu %s: %w: %s (%s)", verb, err, strings.Join(said[max(0, len(said)-2):], "; "), file)
}

func (c *Container) freezerDir() string {
	if dir, ok := c.group.Of("freezer"); ok {
		return dir
	}
	dir, _ := c.group.Unified()
	return dir
}

// externalMounts are the mounts inside that show something of the host: binds,
// cgroups, and what masks paths.
func externalMounts(pid int, spec *specs.Spec) ([]string, error) {
	info, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, fmt.Errorf("read the mounts of %d: %w", pid, err)
	}
	outside := externalSources(spec)
	var list []string
	for line := range strings.Lines(string(info)) {
		before, after, _ := strings.Cut(line, " - ")
		b, a := strings.Fields(before), strings.Fields(after)
		if len(b) < 5 || len(a) < 1 {
			continue
		}
		at := b[4]
		if _, ok := outside[at]; ok || a[0] == "cgroup" || a[0] == "cgroup2" {
			list = append(list, at)
		}
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}

// externalSources are the mounts that the spec takes from the host, by where
// they are, and what they show: "" is a mask.
func externalSources(spec *specs.Spec) map[string]string {
	m := map[string]string{}
	for _, mount := range spec.Mounts {
		if o, err := parseMountOptions(mount); err == nil && o.bind && !o.remount {
			m[path.Clean(mount.Destination)] = mount.Source
		}
	}
	for _, p := range spec.Linux.MaskedPaths {
		m[path.Clean(p)] = ""
	}
	if namespaceFlags(spec.Linux)&unix.CLONE_NEWUSER != 0 {
		for _, n := range defaultNodes() {
			m[n.path] = n.path
		}
	}
	return m
}

// externalNamespaces names those that were given by path: they are not written.
func (c *Container) externalNamespaces(args []string, spec *specs.Spec) ([]string, error) {
	for _, n := range spec.Linux.Namespaces {
		kind, ok := criuNamespaces[n.Type]
		if n.Path == "" || !ok {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(n.Path, &st); err != nil {
			return nil, fmt.Errorf("checkpoint: %s namespace %s: %w", n.Type, n.Path, err)
		}
		args = append(args, "--external", fmt.Sprintf("%s[%d]:%s", kind, st.Ino, namespaceKey(n.Type)))
	}
	return args, nil
}

// criuNamespaces are those that CRIU can leave out, in its words.
var criuNamespaces = map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.PIDNamespace: "pid"}

func namespaceKey(t specs.LinuxNamespaceType) string { return "given-" + string(t) }

// keepDescriptors keeps what the standard streams are: pipes are another's, and
// restored ones get new ones in their place.
func (o *CheckpointOptions) keepDescriptors(pid int) error {
	var names [3]string
	for fd := range names {
		name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read the standard streams: %w", err)
		}
		names[fd] = name
	}
	data, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.ImagePath, descriptorsFile), data, 0o600)
}

// Restore makes a container of the images that [Container.Checkpoint] wrote. Its
// processes go on where they were; the first is a direct child of the caller.
func Restore(ctx context.Context, o CreateOptions, cp CheckpointOptions) (_ *Container, err error) {
	if err := cp.prepare(); err != nil {
		return nil, err
	}
	c, err := newContainer(&o)
	if err != nil {
		return nil, err
	}
	if c.spec.Process.Terminal {
		return nil, fmt.Errorf("restore %s: process.terminal is not supported: %w", o.ID, errdefs.ErrNotImplemented)
	}
	if _, err := c.look(o); err != nil {
		return nil, err
	}
	if c.dir, err = claim(o.Root, o.ID); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return abandon(c.dir) })
	if err := c.keep(o); err != nil {
		return nil, err
	}
	removeGroup, err := c.makeGroup()
	if err != nil {
		return nil, err
	}
	defer errs.Undo(&err, removeGroup)
	if err := c.restore(ctx, o, cp); err != nil {
		return nil, err
	}
	if err := c.seat.leave(); err != nil {
		return nil, err
	}
	// Nobody waits for a start.
	return c, os.Remove(filepath.Join(c.dir, startFifo))
}

// restore runs CRIU in the container's groups, whose processes are born there,
// and in a mount namespace of its own, where the rootfs is a mount.
func (c *Container) restore(ctx context.Context, o CreateOptions, cp CheckpointOptions) (err error) {
	program, err := exec.LookPath(cp.Criu)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	pidFile := filepath.Join(c.dir, "criu.pid")
	args := []string{
		"criu", "restore", "--restore-detached", "--restore-sibling", "--pidfile", pidFile, "--root", c.rec.Rootfs,
	}
	args = append(args, cp.args("restore")...)
	for _, root := range cgroupRoots(c.group) {
		args = append(args, "--cgroup-root", root)
	}
	if args, err = c.restoreMounts(args, o.Bundle); err != nil {
		return err
	}
	if args, err = cp.restoreDescriptors(args); err != nil {
		return err
	}
	b := newBuilder(len(o.ExtraFiles))
	p := &compiler{builder: b, spec: c.spec, linux: c.spec.Linux, process: c.spec.Process, Facts: Facts{CgroupJoin: c.group.JoinFiles()}}
	for _, n := range c.spec.Linux.Namespaces {
		if _, ok := criuNamespaces[n.Type]; ok && n.Path != "" {
			fd := p.namespaceFile(n)
			args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", fd.num, namespaceKey(n.Type)))
		}
	}
	p.joinCgroups()
	p.plan.Clone = unix.CLONE_NEWNS
	p.stage("make the rootfs a mount", c.rec.Rootfs)
	// Nothing goes back to the host, and what binds is still shared: CRIU makes
	// the container's mounts slaves again of what they show.
	p.call("mount", null(), str("/"), null(), named(unix.MS_REC|unix.MS_SLAVE, "MS_REC|MS_SLAVE"), null())
	p.call("mount", null(), str("/"), null(), named(unix.MS_REC|unix.MS_SHARED, "MS_REC|MS_SHARED"), null())
	p.call("mount", str(c.rec.Rootfs), str(c.rec.Rootfs), null(), named(unix.MS_BIND|unix.MS_REC, "MS_BIND|MS_REC"), null())
	p.stage("execute criu", program)
	p.call("execve", str(program), strs(args), strs(os.Environ()))

	l := &launch{plan: p.finish(), stdio: [3]*os.File{o.Stdin, o.Stdout, o.Stderr}, extra: o.ExtraFiles, reap: o.Reap}
	closeGroup, err := l.bornIn(c.group)
	if err != nil {
		return err
	}
	defer closeGroup()
	child, err := l.run()
	if err != nil {
		return err
	}
	defer child.pidfd.Close()
	ws, timedOut, err := child.waitFor(ctx)
	if err == nil && timedOut {
		err = ctx.Err()
	}
	if err == nil && (!ws.Exited() || ws.ExitStatus() != 0) {
		err = fmt.Errorf("exit status %d", ws.ExitStatus())
	}
	if err != nil {
		return cp.explain("restore", err, nil)
	}
	return c.adopt(pidFile)
}

// adopt takes the process that CRIU left us as the container's first.
func (c *Container) adopt(pidFile string) error {
	text, err := os.ReadFile(pidFile)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if c.Pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		return fmt.Errorf("restore: read %s: %w", pidFile, err)
	}
	fd, err := unix.PidfdOpen(c.Pid, 0)
	if err != nil {
		return fmt.Errorf("restore: open pidfd of %d: %w", c.Pid, err)
	}
	c.PidFD = os.NewFile(uintptr(fd), "pidfd")
	c.rec.Pid = c.Pid
	if c.rec.StartTime, err = startTime(c.Pid); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return c.rec.write(c.dir)
}

// cgroupRoots are the groups of the container, which may have another name now.
func cgroupRoots(g *cgroup.Group) []string {
	var list []string
	l, err := cgroup.Discover()
	if err != nil {
		return nil
	}
	for _, d := range g.Dirs {
		if rel, ok := l.Rel(d); ok {
			name := strings.Join(d.Controllers, ",")
			if name != "" {
				rel = name + ":" + rel
			}
			list = append(list, rel)
		}
	}
	return list
}

// restoreMounts says what of the host is mounted where: the spec may name other
// sources than at the checkpoint. A masked directory is an empty one.
func (c *Container) restoreMounts(args []string, bundle string) ([]string, error) {
	empty := filepath.Join(c.dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	add := func(at, source string) { args = append(args, "--external", "mnt["+at+"]:"+source) }
	for at, source := range externalSources(c.spec) {
		switch {
		case source != "" && !filepath.IsAbs(source):
			add(at, filepath.Join(bundle, source))
		case source != "":
			add(at, source)
		default:
			// What is masked lies in procfs or sysfs, which are as they are here.
			if fi, err := os.Stat(at); err == nil && fi.IsDir() {
				add(at, empty)
			} else if err == nil {
				add(at, os.DevNull)
			}
		}
	}
	for _, m := range c.spec.Mounts {
		if m.Type != "cgroup" && m.Type != "cgroup2" {
			continue
		}
		for _, d := range c.group.Dirs {
			if c.group.V2Only() {
				add(path.Clean(m.Destination), d.Path)
			} else if !d.V2 {
				add(path.Join(m.Destination, filepath.Base(d.Mount)), d.Path)
			}
		}
	}
	return args, nil
}

// restoreDescriptors gives the caller's streams in the place of pipes.
func (o *CheckpointOptions) restoreDescriptors(args []string) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(o.ImagePath, descriptorsFile))
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	var names [3]string
	if err := json.Unmarshal(data, &names); err != nil {
		return nil, fmt.Errorf("restore: parse %s: %w", descriptorsFile, err)
	}
	for fd, name := range names {
		if strings.HasPrefix(name, "pipe:") && !slices.Contains(names[:fd], name) {
			args = append(args, "--inherit-fd", fmt.Sprintf("fd[%d]:%s", fd, name))
		}
	}
	return args, nil
}
