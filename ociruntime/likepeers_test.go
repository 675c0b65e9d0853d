package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What runc and crun do and the specification leaves open, as their suites hold it.

func TestAUserCanOpenItsStandardOutputAgain(t *testing.T) {
	r := newRig(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	s := dockerSpec(t, "sh", "-c", "echo opened > /proc/self/fd/1; stat -L -c %u:%g /proc/self/fd/1 /dev/null")
	s.Process.User = specs.User{UID: 1000, GID: 1001}
	b, err := r.create(s, func(o *CreateOptions) { o.Stdout = write })
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.wait()
	if err := b.Delete(context.Background(), false); err != nil {
		t.Error(err)
	}
	got := make([]byte, 100)
	n, _ := read.Read(got)
	if want := "opened\n1000:1001\n0:0\n"; string(got[:n]) != want {
		t.Errorf("it printed %q, want %q (and on its error output %q)", got[:n], want, b.output())
	}
}

func TestTheLoopbackIsUp(t *testing.T) {
	r := newRig(t)
	r.prints("0x9", dockerSpec(t, "cat", "/sys/class/net/lo/flags"))
}

func TestHowHooksBegin(t *testing.T) {
	r := newRig(t)
	log := filepath.Join(t.TempDir(), "log")
	hook := func(kind, say string) []specs.Hook {
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "{ " + say + "; } >> " + log}, Env: []string{"PATH=/bin:/usr/bin"}}}
	}
	s := dockerSpec(t, "true")
	t.Setenv("OF_THE_CALLER", "inherited")
	s.Hooks = &specs.Hooks{
		CreateRuntime:   hook("createRuntime", "pwd; echo -n $OF_THE_CALLER"),
		CreateContainer: hook("createContainer", "pwd; test -e proc/self && echo mounted"),
		Poststop:        []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "{ pwd; echo $OF_THE_CALLER; } >> " + log}}},
	}
	var bundle string
	if _, _, err := r.run(s, func(o *CreateOptions) { bundle = o.Bundle }); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(log)
	if want := fmt.Sprintf("%[1]s\n%[1]s/rootfs\nmounted\n%[1]s\ninherited\n", bundle); err != nil || string(got) != want {
		t.Errorf("the hooks said %q, want %q, %v", got, want, err)
	}
}

func TestAFailedHookOfStartIsTheEndOfTheContainer(t *testing.T) {
	r := newRig(t)
	gone := filepath.Join(t.TempDir(), "gone")
	for kind, hooks := range map[string]*specs.Hooks{
		"startContainer": {StartContainer: []specs.Hook{{Path: "/bin/false"}}},
		"poststart":      {Poststart: []specs.Hook{{Path: "/bin/false"}}},
	} {
		t.Run(kind, func(t *testing.T) {
			s := dockerSpec(t, "sleep", "100")
			s.Hooks = hooks
			s.Hooks.Poststop = []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo " + kind + " >> " + gone}}}
			b, err := r.create(s)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "error running "+kind+" hook #0: run /bin/false: exit status 1") {
				t.Errorf("start: %v", err)
			}
			b.wait()
			if _, err := Load(r.root, b.ID); !errdefs.IsNotFound(err) {
				t.Errorf("the container is there yet: %v", err)
			}
			if said, err := os.ReadFile(gone); err != nil || !strings.Contains(string(said), kind) {
				t.Errorf("poststop hooks said %q, %v", said, err)
			}
		})
	}
}

// A user namespace may make no devices: the runtime makes those of the spec.
func TestDevicesOfAUserNamespace(t *testing.T) {
	r := newRig(t)
	if err := os.Chmod(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Dir(r.dir), 0o755)
	s := dockerSpec(t, "sh", "-c", "stat -c %F:%t:%T:%a:%u:%g /dev/mine; grep -cE ' /dev/(null|mine) rw,nosuid,noexec' /proc/self/mountinfo; echo x > /dev/mine && echo written")
	withUserNamespace(s)
	mode, uid, gid := os.FileMode(0o642), uint32(10), uint32(11)
	s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine", Type: "c", Major: 1, Minor: 3, FileMode: &mode, UID: &uid, GID: &gid}}
	r.prints("character special file:1:3:642:10:11\n2\nwritten", s)
}

func TestWhatTheSpecMayNotSay(t *testing.T) {
	for _, row := range []struct {
		want   string
		change func(*specs.Spec)
	}{
		{`linux.sysctl: "kernel.domainname" is not allowed as it conflicts with domainname "a"`, func(s *specs.Spec) {
			s.Domainname, s.Linux.Sysctl = "a", map[string]string{"kernel.domainname": "b"}
		}},
		{`linux.sysctl: "kernel.hostname" is not allowed as it conflicts with hostname "box"`, func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"kernel.hostname": "b"}
		}},
		{"", func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.hostname": "box"} }},
		{"`SCHED_DEADLINE` requires `runtime`", deadline(0, 20e6, 20e6)},
		{"`SCHED_DEADLINE` requires `deadline`", deadline(10e6, 0, 20e6)},
		{"`SCHED_DEADLINE` runtime 30000000 must be <= deadline 20000000", deadline(30e6, 20e6, 40e6)},
		{"`SCHED_DEADLINE` deadline 30000000 must be <= period 20000000", deadline(10e6, 30e6, 20e6)},
		{"`SCHED_DEADLINE` runtime 1023 must be between 1024 and", deadline(1023, 10e6, 0)},
		{"", deadline(10e6, 20e6, 0)},
	} {
		s := dockerSpec(t, "true")
		row.change(s)
		err := validate(s)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%v, want %q", err, row.want)
		}
	}
}

func deadline(runtime, deadline, period uint64) func(*specs.Spec) {
	return func(s *specs.Spec) {
		s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedDeadline, Runtime: runtime, Deadline: deadline, Period: period}
	}
}

// A number between preserved descriptors that is free stays so: nothing of the
// runtime's comes to lie there.
func TestHolesAmongDescriptors(t *testing.T) {
	r := newRig(t)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	extra := func(o *CreateOptions) { o.ExtraFiles = []*os.File{nil, write, nil, write} }
	s := dockerSpec(t, "sh", "-c", "for n in 3 4 5 6; do [ -e /proc/$$/fd/$n ] && echo -n $n; done; true")
	r.prints("46", s, extra)
	s.Linux.Seccomp = nil
	r.prints("46", s, extra)
	b, err := r.create(dockerSpec(t, "sleep", "100"))
	if err != nil {
		t.Fatal(err)
	}
	out, pipe, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	p, err := b.Exec(context.Background(), process(s, s.Process.Args...), ExecOptions{Stdout: pipe, ExtraFiles: []*os.File{nil, write}})
	pipe.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.PidFD.Close()
	if _, err := Wait(p.PidFD); err != nil {
		t.Error(err)
	}
	said := make([]byte, 100)
	n, _ := out.Read(said)
	if want := "4"; string(said[:n]) != want {
		t.Errorf("an exec has %q, want %q", said[:n], want)
	}
}

func TestTheCallersGroupsAreKeptOnDemand(t *testing.T) {
	r := newRig(t)
	old, err := unix.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setgroups([]int{17, 18}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setgroups(old); err != nil {
			t.Error(err)
		}
	}()
	s := dockerSpec(t, "grep", "Groups", "/proc/self/status")
	r.prints("Groups:", s)
	s.Annotations = map[string]string{"run.oci.keep_original_groups": "1"}
	r.prints("Groups:\t17 18", s)
}

func TestATmpfsKeepsExtendedAttributes(t *testing.T) {
	r := newRig(t)
	// A capability set that a file may have (capabilities(7)): version 2, CAP_CHOWN.
	capability := []byte{1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	s := dockerSpec(t, "sleep", "100")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
	b, err := r.create(s, func(o *CreateOptions) {
		dir := filepath.Join(o.Bundle, "rootfs/data")
		file := filepath.Join(dir, "sub/file")
		if err := errors.Join(
			os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o755), os.Chown(file, 7, 8),
			unix.Setxattr(file, "security.capability", capability, 0), unix.Setxattr(dir, "trusted.mark", []byte("top"), 0),
			unix.Setxattr(filepath.Dir(file), "trusted.mark", []byte("below"), 0),
		); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ file, name, want string }{
		{"", "trusted.mark", "top"},
		{"sub", "trusted.mark", "below"},
		{"sub/file", "security.capability", string(capability)},
	} {
		value := make([]byte, 100)
		n, err := unix.Getxattr(filepath.Join(fmt.Sprintf("/proc/%d/root/data", b.Pid), row.file), row.name, value)
		if err != nil || string(value[:n]) != row.want {
			t.Errorf("%s of /data/%s is %q, %v, want %q", row.name, row.file, value[:max(n, 0)], err, row.want)
		}
	}
}

// hostID is -1 for chown(2) where an id has no meaning outside.
func TestIDsOutsideOfAUserNamespace(t *testing.T) {
	m := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 10}}
	for _, row := range []struct {
		id   uint32
		m    []specs.LinuxIDMapping
		want uint32
	}{{5, nil, 5}, {0, m, 1000}, {10, m, 100009}, {11, m, ^uint32(0)}} {
		if got := hostID(row.id, row.m); got != row.want {
			t.Errorf("%d is %d, want %d", row.id, got, row.want)
		}
	}
}
