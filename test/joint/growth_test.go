package joint

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/test/rig"
)

// Two hundred containers, one after the other, leave what one leaves: nothing.
func TestManyContainersInARowLeaveNothing(t *testing.T) {
	const many = 200
	t.Run("the runtime", func(t *testing.T) {
		o := newOrdinary(t)
		host := rig.Here(t)
		spec := host.Command(o.runtime, "spec")
		spec.Dir = o.dir
		rig.Must(t, spec)
		o.edit(func(s *specs.Spec) { s.Process.Args, s.Process.Terminal = []string{"true"}, false })
		run := func() {
			rig.Must(t, host.Command(o.runtime, "--root", o.dir+"/state", "run", "--bundle", o.dir, "box"))
		}
		run()
		before := counted(t, o.dir)
		for range many {
			run()
		}
		before.still(t, func() traces { return counted(t, o.dir) })
	})
	t.Run("the daemon", func(t *testing.T) {
		host := rig.NewHost(t)
		g := rig.StartGantryd(t, host)
		rig.Must(t, g.Gantry(t, "load", "-q", "-i", archive(t, host)))
		run := func(n int) {
			var all sync.WaitGroup
			for range 4 {
				all.Go(func() {
					for range n / 4 {
						if r := rig.Run(t, g.Gantry(t, "run", "--rm", "-p", "80", "-v", "/data", "busybox", "true")); r.Code != 0 {
							t.Errorf("run: %+v", r)
						}
					}
				})
			}
			all.Wait()
		}
		look := func() traces {
			now := counted(t, g.State, filepath.Join(g.Dir, "r"))
			fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", g.Cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			now["descriptors of the daemon"] = len(fds)
			now["links"] = strings.Count(rig.Must(t, host.Command("ip", "-o", "link")), "\n")
			now["lines of rules"] = strings.Count(rig.Must(t, host.Command("nft", "list", "ruleset")), "\n")
			return now
		}
		run(40) // what is kept for the next is there
		before := look()
		run(many)
		before.still(t, look)
	})
}

// traces is how many there are of each thing that containers tend to leave.
type traces map[string]int

// counted counts mounts, cgroups and, below dirs, files.
func counted(t *testing.T, dirs ...string) traces {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	now := traces{"mounts": strings.Count(string(mounts), "\n")}
	count := func(what, dir string, wanted func(fs.DirEntry) bool) {
		_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
			if err == nil && wanted(d) { // what vanishes is not left
				now[what]++
			}
			return nil
		})
	}
	count("cgroups", "/sys/fs/cgroup", fs.DirEntry.IsDir)
	for _, dir := range dirs {
		count("files in "+dir, dir, func(fs.DirEntry) bool { return true })
	}
	return now
}

// still waits until there is no more of anything than before, but for a few that
// are made ready for the next container, or not yet gone.
func (before traces) still(t *testing.T, look func() traces) {
	t.Helper()
	const few = 10
	rig.Eventually(t, func() error {
		now := look()
		for what, n := range now {
			if n > before[what]+few {
				return fmt.Errorf("%s: %d, and %d before", what, n, before[what])
			}
		}
		return nil
	})
}
