package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What mount(2) makes of the flags of a bind mount is what callers count on.
func TestFlagsOfBindMounts(t *testing.T) {
	for _, c := range []struct {
		name, options string
		source        uintptr
		userns        bool
		want          string // of their flags, sorted by the kernel
	}{
		{"no flags keep those of the source", "bind", unix.MS_RDONLY | unix.MS_NOEXEC, false, "ro,noexec,relatime"},
		{"any flag clears the others", "bind,nosuid,nodev", unix.MS_RDONLY | unix.MS_NOEXEC, false, "rw,nosuid,nodev,relatime"},
		{"one that clears does too", "bind,dev", unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOEXEC, false, "rw,relatime"},
		{"not in a user namespace", "bind,nosuid", unix.MS_RDONLY | unix.MS_NOEXEC, true, "ro,nosuid,noexec,relatime"},
		{"but for nosymfollow", "bind,ro", unix.MS_NODEV | unix.MS_NOSYMFOLLOW, true, "ro,nodev,relatime"},
		{"the time of access stays", "bind,ro,atime", unix.MS_NOATIME, false, "ro,noatime"},
		{"until another is named", "bind,relatime", unix.MS_NOATIME, false, "rw,relatime"},
		{"nodiratime names relatime", "bind,nodiratime", unix.MS_NOATIME, false, "rw,nodiratime,relatime"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			dir := boundTmpfs(t, r, c.source)
			s := dockerSpec(t, "sh", "-c", "grep ' /tmp ' /proc/self/mountinfo | cut -d' ' -f6")
			if c.userns {
				withUserNamespace(s)
			}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "bind", Source: dir, Options: strings.Split(c.options, ",")})
			r.prints(c.want, s)
		})
	}
}

// In a user namespace an option may not take away what the source has.
func TestFlagsThatAUserNamespaceKeeps(t *testing.T) {
	for _, c := range []struct {
		options string
		source  uintptr
		refused string
	}{
		{"bind,rw", unix.MS_RDONLY, "clear RDONLY"},
		{"bind,dev,suid,exec", unix.MS_NOSUID | unix.MS_NODEV, "clear NOSUID|NODEV"},
		{"bind,strictatime", unix.MS_RELATIME, "change access times"},
		{"bind,nodiratime", unix.MS_RELATIME, "change access times"},
		{"bind,noatime", unix.MS_NOATIME | unix.MS_NODIRATIME, "change access times"},
		{"bind,rw,dev", 0, ""},
		{"bind,relatime", unix.MS_RELATIME, ""},
		{"bind,noatime", unix.MS_NOATIME, ""},
		{"bind,strictatime", unix.MS_STRICTATIME, ""},
		{"bind,ro,exec,atime,diratime", unix.MS_NODEV | unix.MS_NODIRATIME, ""},
	} {
		t.Run(c.options, func(t *testing.T) {
			r := newRig(t)
			dir := boundTmpfs(t, r, c.source)
			s := dockerSpec(t, "true")
			withUserNamespace(s)
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "bind", Source: dir, Options: strings.Split(c.options, ",")})
			_, _, err := r.run(s)
			switch {
			case c.refused == "" && err != nil:
				t.Error(err)
			case c.refused != "" && (!errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), c.refused+" ")):
				t.Errorf("%v, want %q", err, c.refused)
			}
		})
	}
}

// boundTmpfs is a tmpfs with flags of the mount.
func boundTmpfs(t *testing.T, r *rig, flags uintptr) string {
	t.Helper()
	dir := filepath.Join(r.dir, "source")
	if err := errors.Join(os.Mkdir(dir, 0o755), unix.Mount("tmpfs", dir, "tmpfs", 0, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The ids of a user namespace that is joined are read off it, not off config.json.
func TestAMountIsMappedAsTheJoinedUserNamespace(t *testing.T) {
	r := newRig(t)
	if onTmpfs(t, r.dir) {
		needsLinux(t, 6, 3, "id-mapped mounts of a tmpfs")
	}
	s := dockerSpec(t, "sleep", "1000")
	withUserNamespace(s)
	target, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(r.dir, "data")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, 7, 8)); err != nil {
		t.Fatal(err)
	}
	s = dockerSpec(t, "stat", "-c", "%u:%g", "/tmp")
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: fmt.Sprintf("/proc/%d/ns/user", target.Pid)})
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "bind", Source: dir, Options: []string{"bind", "idmap"}})
	r.prints("7:8", s)
}

// Without pivot_root the host's mounts stay below the container's: no procfs or
// sysfs may be among them, or the kernel would let a user namespace mount a new
// one without the masks.
func TestNoPivotLeavesNoProcfsBelow(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "busybox", "unshare", "-mrpf", "sh", "-c", "mount -t proc none /proc && echo mounted")
	s.Linux.Seccomp = nil
	s.Process.Capabilities.Bounding = append(s.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
	out, ws, err := r.run(s, func(o *CreateOptions) { o.NoPivot = true })
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "mount: permission denied") || ws.ExitStatus() == 0 {
		t.Errorf("%q, %v", out, ws)
	}
}

// A program is looked for with the rights that it will be executed with.
func TestACapabilityMayFindTheProgram(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "/bin/private", "true")
	s.Process.User = specs.User{UID: 1000, GID: 1000}
	create := func() (string, error) {
		dir := r.bundle(s)
		program, err := os.ReadFile("/bin/busybox")
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "rootfs/bin/private"), program, 0o700)
		}
		if err != nil {
			t.Fatal(err)
		}
		c, err := Create(context.Background(), CreateOptions{ID: "gt-private", Bundle: dir, Root: r.root})
		if err != nil {
			return "", err
		}
		defer c.Close()
		if err := errors.Join(c.Start(context.Background()), c.Delete(context.Background(), true)); err != nil {
			return "", err
		}
		_, err = Wait(c.PidFD)
		return "ran", err
	}
	all := s.Process.Capabilities.Permitted
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all}
	if got, err := create(); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("without: %q, %v", got, err)
	}
	s.Process.Capabilities.Permitted, s.Process.Capabilities.Effective = all, all
	if got, err := create(); err != nil {
		t.Errorf("with CAP_DAC_OVERRIDE: %q, %v", got, err)
	}
}

// What the host mounts on a shared rootfs while the container runs shows in it.
func TestASlaveRootfsHearsOfTheHost(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sh", "-c", "i=0; until test -e /tmp/there || test $((i += 1)) -gt 600; do sleep 0.05; done; test -e /tmp/there && echo seen")
	s.Linux.RootfsPropagation = "rslave"
	var rootfs string
	b, err := r.create(s, func(o *CreateOptions) {
		rootfs = filepath.Join(o.Bundle, "rootfs")
		if err := errors.Join(unix.Mount(rootfs, rootfs, "", unix.MS_BIND, ""), unix.Mount("", rootfs, "", unix.MS_SHARED, "")); err != nil {
			t.Fatal(err)
		}
	})
	defer unix.Unmount(rootfs, unix.MNT_DETACH)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(rootfs, "tmp")
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	if err := os.WriteFile(filepath.Join(dir, "there"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	b.wait()
	if got := strings.TrimSpace(b.output()); got != "seen" {
		t.Errorf("printed %q", got)
	}
	if err := b.Delete(context.Background(), false); err != nil {
		t.Error(err)
	}
}

// /dev/ptmx is of the container's own devpts whatever linux.devices says, also
// where devices are bound from the host.
func TestPtmxIsTheContainersOwn(t *testing.T) {
	for _, change := range []func(*specs.Spec){func(*specs.Spec) {}, withUserNamespace} {
		r := newRig(t)
		s := dockerSpec(t, "readlink", "/dev/ptmx")
		change(s)
		s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/ptmx", Type: "c", Major: 5, Minor: 2}}
		r.prints("pts/ptmx", s)
	}
}
