package runtime

import (
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/test/rig"
)

var (
	all    = flag.Bool("all", false, "run the whole suites, and against the control too")
	update = flag.Bool("update", false, "write the lists in testdata anew from what is seen")
	only   = flag.String("only", "", "run only the files of a suite that begin with this")
)

// workDir is a temporary directory for what a suite makes. What a control leaves
// there, or running, is not held against us.
func workDir(t *testing.T, program string) string {
	t.Helper()
	dir := rig.Dir(t)
	if err := os.Chmod(dir, 0o755); err != nil { // the root of a user namespace passes there
		t.Fatal(err)
	}
	if filepath.Base(program) == "gantry-runtime" {
		return dir
	}
	t.Cleanup(func() {
		killContainers(t)
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range slices.Backward(strings.Split(string(mounts), "\n")) {
			if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
				unix.Unmount(f[4], unix.MNT_DETACH)
			}
		}
	})
	return dir
}

// killContainers kills what runs in the groups below ours.
func killContainers(t *testing.T) {
	t.Helper()
	self := strconv.Itoa(os.Getpid())
	err := filepath.WalkDir("/sys/fs/cgroup", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "cgroup.procs" {
			return nil // a group that goes meanwhile is none of theirs
		}
		data, _ := os.ReadFile(name)
		if pids := strings.Fields(string(data)); !slices.Contains(pids, self) {
			for _, pid := range pids {
				if n, err := strconv.Atoi(pid); err == nil && n > 1 {
					unix.Kill(n, unix.SIGKILL)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	rig.Main(m)
}
