package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rig makes containers for one test, and fails the test when one of them leaves
// anything behind.
type rig struct {
	t    *testing.T
	root string // of the state
	dir  string // of bundles
}

// linuxIs says whether this kernel is at least major.minor.
func linuxIs(t *testing.T, major, minor int) bool {
	t.Helper()
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		t.Fatal(err)
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(uts.Release[:]), "%d.%d", &a, &b); err != nil {
		t.Fatal(err)
	}
	return a > major || a == major && b >= minor
}

// needsLinux skips a test that this kernel is too old for.
func needsLinux(t *testing.T, major, minor int, what string) {
	t.Helper()
	if !linuxIs(t, major, minor) {
		t.Skipf("%s need Linux %d.%d", what, major, minor)
	}
}

func onTmpfs(t *testing.T, dir string) bool {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st.Type == unix.TMPFS_MAGIC
}

func newRig(t *testing.T) *rig {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers of this test need root, and this is user", os.Geteuid())
	}
	r := &rig{t: t, root: filepath.Join(t.TempDir(), "state"), dir: t.TempDir()}
	t.Cleanup(func() {
		if list, err := List(r.root); err != nil || len(list) > 0 {
			t.Errorf("%d containers are left, %v", len(list), err)
			for _, c := range list {
				c.Delete(context.Background(), true)
			}
		}
	})
	return r
}

// dockerSpec is what dockerd writes for `docker run IMAGE args`.
func dockerSpec(t testing.TB, args ...string) *specs.Spec {
	t.Helper()
	caps := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	score := 0
	s := &specs.Spec{
		Version:  "1.2.0",
		Hostname: "box",
		Root:     &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin:/sbin", "HOME=/root"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
			OOMScoreAdj:  &score,
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: "mount"}, {Type: "network"}, {Type: "uts"}, {Type: "pid"}, {Type: "ipc"}},
			MaskedPaths: []string{
				"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{
				{Allow: false, Access: "rwm"},
			}},
		},
	}
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Linux.Seccomp = profile
	return s
}

// bundle writes a bundle with a busybox in its rootfs.
func (r *rig) bundle(s *specs.Spec) (dir string) {
	r.t.Helper()
	dir, err := os.MkdirTemp(r.dir, "bundle")
	if err != nil {
		r.t.Fatal(err)
	}
	if err := busyboxRootfs(filepath.Join(dir, "rootfs")); err != nil {
		r.t.Fatal(err)
	}
	data, err := json.Marshal(s)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644); err != nil {
		r.t.Fatal(err)
	}
	return dir
}

func busyboxRootfs(dir string) error {
	for _, d := range []string{"bin", "dev", "etc", "proc", "root", "sys", "tmp", "var"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	program, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/busybox"), program, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"sh", "true", "false", "cat", "ls", "sleep", "wc", "cut", "tr", "umount", "pwd", "id", "echo", "mount", "hostname", "stat", "ip", "chmod", "dd", "grep", "readlink", "tty", "env", "kill", "ps", "touch", "head", "tail"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", name)); err != nil {
			return err
		}
	}
	if err := os.Symlink("/run", filepath.Join(dir, "var/run")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\n"), 0o644)
}

// box is a container of a test, with what it prints.
type box struct {
	*Container
	t    *testing.T
	said *os.File
}

// create makes a container of s; its output goes to a file.
func (r *rig) create(s *specs.Spec, change ...func(*CreateOptions)) (*box, error) {
	r.t.Helper()
	said, err := os.CreateTemp(r.dir, "output")
	if err != nil {
		r.t.Fatal(err)
	}
	o := CreateOptions{
		ID: "gt-run-" + filepath.Base(said.Name()), Bundle: r.bundle(s), Root: r.root,
		Stdout: said, Stderr: said,
	}
	for _, f := range change {
		f(&o)
	}
	c, err := Create(context.Background(), o)
	if err != nil {
		said.Close()
		return nil, err
	}
	b := &box{c, r.t, said}
	r.t.Cleanup(func() {
		said.Close()
		if err := c.Delete(context.Background(), true); err == nil {
			b.wait()
		}
		c.Close()
	})
	return b, nil
}

// wait reaps the first process, and is its status.
func (b *box) wait() syscall.WaitStatus {
	b.t.Helper()
	ws, err := Wait(b.PidFD)
	if err != nil {
		b.t.Error("wait:", err)
	}
	return ws
}

// output is what was printed until now.
func (b *box) output() string {
	data, err := os.ReadFile(b.said.Name())
	if err != nil {
		b.t.Error(err)
	}
	return string(data)
}

// run runs a container of s to its end and is what it printed.
func (r *rig) run(s *specs.Spec, change ...func(*CreateOptions)) (string, syscall.WaitStatus, error) {
	r.t.Helper()
	b, err := r.create(s, change...)
	if err != nil {
		return "", 0, err
	}
	if err := b.Start(context.Background()); err != nil {
		b.wait()
		if err := b.Delete(context.Background(), false); err != nil {
			r.t.Error("delete:", err)
		}
		return "", 0, err
	}
	ws := b.wait()
	if err := b.Delete(context.Background(), false); err != nil {
		r.t.Error("delete:", err)
	}
	return b.output(), ws, nil
}

// prints fails unless a container of s ends well and prints want.
func (r *rig) prints(want string, s *specs.Spec, change ...func(*CreateOptions)) {
	r.t.Helper()
	got, ws, err := r.run(s, change...)
	if err != nil {
		r.t.Fatal(err)
	}
	if got = strings.TrimSpace(got); got != want || ws.ExitStatus() != 0 {
		r.t.Errorf("printed %q and ended with %v, want %q", got, ws, want)
	}
}

// exec runs a process in b and is what it printed.
func (b *box) exec(p *specs.Process) (string, syscall.WaitStatus, error) {
	b.t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	proc, err := b.Exec(context.Background(), p, ExecOptions{Stdout: w, Stderr: w})
	w.Close()
	if err != nil {
		return "", 0, err
	}
	defer proc.PidFD.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil {
		b.t.Error(err)
	}
	ws, err := Wait(proc.PidFD)
	if err != nil {
		b.t.Error("wait:", err)
	}
	return strings.TrimSpace(out.String()), ws, nil
}

// process is s's process with other arguments.
func process(s *specs.Spec, args ...string) *specs.Process {
	p := *s.Process
	p.Args = args
	return &p
}

// mounted lists what is mounted below dir.
func mounted(t *testing.T, dir string) []string {
	t.Helper()
	out, err := exec.Command("cat", "/proc/self/mountinfo").Output()
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, dir) {
			list = append(list, line)
		}
	}
	return list
}
