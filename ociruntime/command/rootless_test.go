package command

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The process that waits for its start is entered by whom the kernel lets look at
// it: an ordinary user, too, who made it.
func TestAnOrdinaryUserExecsInACreatedContainer(t *testing.T) {
	r := newTool(t)
	dir := bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "1000"}
		s.Linux.CgroupsPath = ""
		makeRootless(s, ordinary, ordinary)
	})
	asUser := r.asUser(t, dir)
	if res := asUser("create", "-b", dir, "x"); res.code != 0 {
		t.Fatalf("create: %+v", res)
	}
	pid := r.state(t, "x").Pid
	if res := asUser("exec", "x", "echo", "inside"); res.code != 0 || res.out != "inside\n" {
		t.Errorf("exec: %+v", res)
	}
	if res := asUser("delete", "--force", "x"); res.code != 0 {
		t.Errorf("delete: %+v", res)
	}
	reapChild(t, pid)
}

// Who may not make a tmpfs outside has the child copy what lies below it.
func TestTmpcopyupOfAnOrdinaryUser(t *testing.T) {
	r := newTool(t)
	dir := bundle(t, func(s *specs.Spec) {
		shell("cd /data; cat file sub/file; cat link; busybox stat -c '%a %u %n' . file sub fifo; busybox touch new; busybox ls /empty; busybox touch /read 2>&1")(s)
		s.Linux.CgroupsPath = ""
		makeRootless(s, ordinary, ordinary)
		for _, m := range []specs.Mount{
			{Destination: "/data"}, {Destination: "/nothing"}, {Destination: "/read", Options: []string{"ro"}},
		} {
			m.Type, m.Source, m.Options = "tmpfs", "tmpfs", append(m.Options, "tmpcopyup")
			s.Mounts = append(s.Mounts, m)
		}
	})
	rootfs := filepath.Join(dir, "rootfs")
	for _, d := range []string{"data/sub", "empty", "read"} {
		if err := os.MkdirAll(filepath.Join(rootfs, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(rootfs, "data")
	write(t, filepath.Join(data, "file"), "one\n", 0o644)
	write(t, filepath.Join(data, "sub/file"), "two\n", 0o644)
	if err := errors.Join(os.Chmod(data, 0o750), os.Chmod(filepath.Join(data, "file"), 0o640), os.Symlink("sub/file", filepath.Join(data, "link")), unix.Mkfifo(filepath.Join(data, "fifo"), 0o604)); err != nil {
		t.Fatal(err)
	}
	res := r.asUser(t, dir)("run", "-b", dir, "x")
	want := "one\ntwo\ntwo\n750 0 .\n640 0 file\n755 0 sub\n604 0 fifo\n"
	if !strings.HasPrefix(res.out, want) || !strings.Contains(res.out, "Read-only file system") {
		t.Errorf("%+v, want %q", res, want)
	}
	if _, err := os.Stat(filepath.Join(data, "new")); err == nil {
		t.Error("it was written to the rootfs")
	}
}

// ordinary is the id of somebody who is not root.
const ordinary = 23456

// asUser gives the bundle and the state to an ordinary user, and runs commands as it.
func (r tool) asUser(t *testing.T, dir string) func(args ...string) result {
	t.Helper()
	const user = ordinary
	if err := os.Mkdir(r.root, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, top := range []string{filepath.Dir(dir), filepath.Dir(r.root)} {
		err := filepath.WalkDir(top, func(name string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(name, user, user)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return func(args ...string) result {
		cmd := r.command(args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		return run(t, cmd)
	}
}
