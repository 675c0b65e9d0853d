package bench

import (
	"os"
	"os/exec"
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
	run  func(tb testing.TB)
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
	return v[len(v)/2]
}

// interleave runs every contender n times, A B C A B C, after one run of each to
// warm up.
func interleave(tb testing.TB, n int, cs ...contender) []sample {
	tb.Helper()
	out := make([]sample, len(cs))
	for i := range n + 1 {
		for j, c := range cs {
			s := once(tb, c)
			out[j].name = c.name
			if i > 0 {
				out[j].wall, out[j].cpu = append(out[j].wall, s.wall...), append(out[j].cpu, s.cpu...)
			}
		}
	}
	return out
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// usedCPU is the CPU time of everything on the rig's ground: the cgroup that this
// test sees as the root holds every command, daemon, shim and container of it.
func usedCPU(tb testing.TB) time.Duration {
	if v1, err := os.ReadFile("/sys/fs/cgroup/cpuacct/cpuacct.usage"); err == nil {
		n, err := strconv.ParseInt(strings.TrimSpace(string(v1)), 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		return time.Duration(n)
	}
	v2, err := os.ReadFile("/sys/fs/cgroup/cpu.stat")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(v2)) {
		if us, ok := strings.CutPrefix(line, "usage_usec "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(us), 10, 64)
			if err != nil {
				tb.Fatal(err)
			}
			return time.Duration(n) * time.Microsecond
		}
	}
	tb.Fatal("neither cpuacct.usage nor cpu.stat says what was used")
	return 0
}

// sh is a contender that runs one command, output thrown away.
func sh(name, program string, args ...string) contender {
	return contender{name, func(tb testing.TB) { quiet(tb, program, args...) }}
}

func quiet(tb testing.TB, program string, args ...string) {
	tb.Helper()
	// A file and not a pipe: a container that stays would hold it open.
	stderr, err := os.CreateTemp("", "stderr")
	if err != nil {
		tb.Fatal(err)
	}
	defer stderr.Close()
	defer os.Remove(stderr.Name())
	cmd := exec.Command(program, args...)
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(stderr.Name())
		tb.Fatalf("%s: %v: %s", cmd, err, said)
	}
}

// memAvailable is what the machine has left, in kilobytes.
func memAvailable(tb testing.TB) float64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemAvailable:" {
			n, err := strconv.ParseFloat(f[1], 64)
			if err != nil {
				tb.Fatal(err)
			}
			return n
		}
	}
	tb.Fatal("no MemAvailable in /proc/meminfo")
	return 0
}

// byProgram is the memory of the processes of a program, by its base name, in
// kilobytes. Those of other mount namespaces are not of this test.
func byProgram(field, program string) []float64 {
	var out []float64
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
		data, err := os.ReadFile(d + "/smaps_rollup")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == field+":" {
				if n, err := strconv.ParseFloat(f[1], 64); err == nil {
					out = append(out, n)
				}
			}
		}
	}
	return out
}

// once is one measured run.
func once(tb testing.TB, c contender) sample {
	tb.Helper()
	cpu, start := usedCPU(tb), time.Now()
	c.run(tb)
	wall := time.Since(start)
	time.Sleep(60 * time.Millisecond) // what is done after the answer counts too
	return sample{c.name, []float64{ms(wall)}, []float64{ms(usedCPU(tb) - cpu)}}
}
