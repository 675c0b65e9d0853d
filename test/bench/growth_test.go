package bench

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

// runtimeMemory is the high water of a command: of its process or of one that it
// waited for, whichever had more. GNU time starts them: it is small, and what a
// process had before it became the command counts too.
func (w *world) runtimeMemory(r *report, tb testing.TB, title string) {
	const times = 5
	file := filepath.Join(rig.Dir(tb), "peak")
	peak := func(c tool, args ...string) float64 {
		tool{rig.Peer(tb, "time"), "-f", "%M", "-o", file}.with(c...).do(tb, args...)
		data, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		kb, err := strconv.ParseFloat(strings.TrimSpace(string(data)), 64)
		if err != nil {
			tb.Fatal(err)
		}
		return kb / 1024
	}
	r.row("\n## %s\n\nThe most that a process of the command had (ru_maxrss), with docker's seccomp profile; medians of %d.\n", title, times)
	r.row("| | run, RSS MB | create, RSS MB | exec, RSS MB |\n| --- | --: | --: | --: |")
	for _, c := range []tool{w.runtime, w.runc, w.crun} {
		var run, create, exec []float64
		for range times {
			run = append(run, peak(c, "run", "--bundle", w.bundle, "bench"))
			create = append(create, peak(c, "create", "--bundle", w.sleeper, "bench"))
			c.do(tb, "start", "bench")
			exec = append(exec, peak(c, "exec", "bench", "true"))
			c.do(tb, "delete", "--force", "bench")
		}
		r.row("| %s | %.1f | %.1f | %.1f |", c.base(), median(run), median(create), median(exec))
	}
}

// inARow runs many containers one after the other and looks at what could pile up.
func (w *world) inARow(r *report, tb testing.TB, title string) {
	r.row("\n## %s\n\n%d times `run` of `true`. Memory is the machine's, read %v after the last one, and moves with everything else on it; "+
		"a cgroup that the kernel has yet to free counts.\n", title, *many, settle)
	r.row("| | files in the state directory | cgroups | MemAvailable taken, kB | slab grown, kB |\n| --- | --: | --: | --: | --: |")
	for _, c := range []tool{w.runtime, w.runc, w.crun} {
		c.do(tb, "run", "--bundle", w.bundle, "bench") // what the first one makes, it makes for all
		time.Sleep(settle)
		before := standing(tb, c)
		for range *many {
			c.do(tb, "run", "--bundle", w.bundle, "bench")
		}
		time.Sleep(settle)
		after := standing(tb, c)
		r.row("| %s | %+d | %+d | %.0f | %.0f |", c.base(), after.files-before.files, after.groups-before.groups, before.available-after.available, after.slab-before.slab)
	}
}

// stand is what could grow with each container that was there.
type stand struct {
	files, groups   int
	available, slab float64 // in kilobytes
}

func standing(tb testing.TB, runtime tool) stand {
	tb.Helper()
	entries := 0
	if err := filepath.WalkDir(runtime[2], func(string, os.DirEntry, error) error { entries++; return nil }); err != nil { // --root
		tb.Fatal(err)
	}
	slab, err := field("/proc/meminfo", "Slab:")
	if err != nil {
		tb.Fatal(err)
	}
	return stand{files: entries, groups: groups(tb), available: memAvailable(tb), slab: slab}
}

// groups is how many cgroups the kernel has, those included that are removed and
// not yet free.
func groups(tb testing.TB) int {
	tb.Helper()
	data, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		tb.Fatal(err)
	}
	sum, seen := 0, map[string]bool{}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line) // name, hierarchy, cgroups, enabled
		if len(f) != 4 || seen[f[1]] {
			continue
		}
		if n, err := strconv.Atoi(f[2]); err == nil {
			sum, seen[f[1]] = sum+n, true
		}
	}
	return sum
}
