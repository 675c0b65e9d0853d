package command

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The process that waits for its start is entered by whom the kernel lets look at
// it: an ordinary user, too, who made it.
func TestAnOrdinaryUserExecsInACreatedContainer(t *testing.T) {
	r := newTool(t)
	const user = 23456
	dir := bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "1000"}
		s.Linux.CgroupsPath = ""
		makeRootless(s, user, user)
	})
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
	asUser := func(args ...string) result {
		cmd := r.command(args...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		return run(t, cmd)
	}
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
