package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// contender is one way to do the work of a chapter.
type contender struct {
	name string
	run  func() error
	undo func() // after each run, not measured; may be nil
}

// sample is what the runs of one contender took, in milliseconds.
type sample struct {
	name      string
	wall, cpu []float64
}

func (s sample) wallMedian() float64 { return median(s.wall) }
func (s sample) cpuMedian() float64  { return median(s.cpu) }

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// interleave runs every contender n times, A B C A B C, after one run of each to
// warm up.
func interleave(tb testing.TB, n int, cs ...contender) []sample {
	tb.Helper()
	inTurn(tb, 1, cs...)
	return inTurn(tb, n, cs...)
}

// inTurn is interleave without the run to warm up, for what takes long or cannot
// be repeated.
func inTurn(tb testing.TB, n int, cs ...contender) []sample {
	tb.Helper()
	out := make([]sample, len(cs))
	for range n {
		for j, c := range cs {
			wall, cpu := once(tb, c)
			if c.undo != nil {
				c.undo()
			}
			out[j].name = c.name
			out[j].wall, out[j].cpu = append(out[j].wall, wall), append(out[j].cpu, cpu)
		}
	}
	return out
}

// once is one measured run, in milliseconds.
func once(tb testing.TB, c contender) (wall, cpu float64) {
	tb.Helper()
	before, start := usedCPU(tb), time.Now()
	if err := c.run(); err != nil {
		tb.Fatalf("%s is broken here: %v", c.name, err)
	}
	took := time.Since(start)
	time.Sleep(60 * time.Millisecond) // what is done after the answer counts too
	return ms(took), ms(usedCPU(tb) - before)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// usedCPU is the CPU time of everything on the rig's ground: the cgroup that this
// test sees as the root holds every command, daemon, shim and container of it.
func usedCPU(tb testing.TB) time.Duration {
	tb.Helper()
	if v1, err := os.ReadFile("/sys/fs/cgroup/cpuacct/cpuacct.usage"); err == nil {
		n, err := strconv.ParseInt(strings.TrimSpace(string(v1)), 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		return time.Duration(n)
	}
	us, err := field("/sys/fs/cgroup/cpu.stat", "usage_usec")
	if err != nil {
		tb.Fatalf("neither cpuacct.usage nor cpu.stat says what was used: %v", err)
	}
	return time.Duration(us) * time.Microsecond
}

// memAvailable is what the machine has left, in kilobytes.
func memAvailable(tb testing.TB) float64 {
	tb.Helper()
	kb, err := field("/proc/meminfo", "MemAvailable:")
	if err != nil {
		tb.Fatal(err)
	}
	return kb
}

// charged is the memory of everything on the rig's ground, in kilobytes, without
// the page cache and tmpfs: what other programs do does not tell here.
func charged(tb testing.TB) float64 {
	tb.Helper()
	usage, stat, cache := "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "total_cache"
	if _, err := os.Stat(usage); err != nil {
		usage, stat, cache = "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat", "file"
	}
	all, err := os.ReadFile(usage)
	if err != nil {
		tb.Fatal(err)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(all)), 64)
	if err != nil {
		tb.Fatal(err)
	}
	files, err := field(stat, cache)
	if err != nil {
		tb.Fatal(err)
	}
	return (n - files) / 1024
}

// memory is the Rss or Pss of a process, in kilobytes.
func memory(pid int, what string) (float64, error) {
	return field(fmt.Sprintf("/proc/%d/smaps_rollup", pid), what+":")
}

// field is the number that follows a name at the start of a line.
func field(file, name string) (float64, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == name {
			return strconv.ParseFloat(f[1], 64)
		}
	}
	return 0, fmt.Errorf("no %s in %s", name, file)
}

// running lists the processes of this test that run a program: those of other
// mount namespaces are somebody else's.
func running(program string) []int {
	var pids []int
	ours, _ := os.Readlink("/proc/self/ns/mnt")
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		exe, err := os.Readlink(d + "/exe")
		if err != nil || filepath.Base(exe) != program {
			continue
		}
		if theirs, err := os.Readlink(d + "/ns/mnt"); err != nil || theirs != ours {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// resident is the memory of daemons, in megabytes.
func resident(tb testing.TB, pids ...int) float64 {
	tb.Helper()
	sum := 0.0
	for _, pid := range pids {
		kb, err := memory(pid, "Rss")
		if err != nil {
			tb.Fatal(err)
		}
		sum += kb
	}
	return sum / 1024
}

// child is the process that a daemon started, by its program.
func child(tb testing.TB, parent int, program string) int {
	tb.Helper()
	for _, pid := range running(program) {
		if ppid, err := field(fmt.Sprintf("/proc/%d/status", pid), "PPid:"); err == nil && int(ppid) == parent {
			return pid
		}
	}
	tb.Fatalf("process %d has no child %s", parent, program)
	return 0
}
