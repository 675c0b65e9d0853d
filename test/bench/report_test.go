package bench

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"
)

// report gathers docs/benchmarks.md: how ours stands to each line of the budget,
// and a chapter for each kind of work.
type report struct {
	budget, text strings.Builder
	machine      string
}

// bound is a line of the budget: ours against a peer's, at most must.
type bound struct {
	against   string // a contender
	cpu       bool   // of CPU, not wall time
	must, aim float64
}

// chapter writes a table of samples, the first being ours, and how ours stands to
// each bound.
func (r *report) chapter(tb testing.TB, title string, samples []sample, bounds ...bound) {
	tb.Helper()
	ours := samples[0]
	r.row("\n## %s\n", title)
	r.row("| | runs | wall ms | CPU ms | ours / theirs, wall | ours / theirs, CPU |\n| --- | --: | --: | --: | --: | --: |")
	by := map[string]sample{}
	for _, s := range samples {
		by[s.name] = s
		r.row("| %s | %d | %.1f | %.1f | %.3f | %.3f |", s.name, len(s.wall), s.wallMedian(), s.cpuMedian(),
			ours.wallMedian()/s.wallMedian(), ours.cpuMedian()/s.cpuMedian())
	}
	for _, b := range bounds {
		s, ok := by[b.against]
		if !ok {
			tb.Fatalf("%s: nobody measured %s", title, b.against)
		}
		if b.cpu {
			r.verdict(ours.name+", CPU", s.name, "ms", ours.cpuMedian(), s.cpuMedian(), b.must, b.aim)
		} else {
			r.verdict(ours.name, s.name, "ms", ours.wallMedian(), s.wallMedian(), b.must, b.aim)
		}
	}
}

// verdict writes how the ratio of ours to theirs stands to the budget.
func (r *report) verdict(what, against, unit string, ours, theirs, must, aim float64) {
	ratio := ours / theirs
	word := judge(ratio, must, aim)
	fmt.Fprintf(&r.budget, "| %s | %s | %.4g %s | %.4g %s | %.3f | %.2f | %.2f | %s |\n", what, against, ours, unit, theirs, unit, ratio, must, aim, word)
	fmt.Fprintf(os.Stderr, "\t%s against %s: %.3f (%.2f, %.2f): %s\n", what, against, ratio, must, aim, word)
}

// absolute is a line of the budget that is no ratio.
func (r *report) absolute(what, unit string, ours, must, aim float64) {
	word := judge(ours, must, aim)
	fmt.Fprintf(&r.budget, "| %s | | %.4g %s | | | %.2f %s | %.2f %s | %s |\n", what, ours, unit, must, unit, aim, unit, word)
	fmt.Fprintf(os.Stderr, "\t%s: %.4g %s (%.2f, %.2f): %s\n", what, ours, unit, must, aim, word)
}

func judge(value, must, aim float64) string {
	switch {
	case !(value > 0): // the memory that others gave back meanwhile, or nothing to compare with
		return "**not measurable now**"
	case value <= aim:
		return "Aim reached"
	case value <= must:
		return "Must reached"
	}
	return "**missed**"
}

// row writes one line of the chapters.
func (r *report) row(format string, args ...any) { fmt.Fprintf(&r.text, format+"\n", args...) }

// page is docs/benchmarks.md.
func (r *report) page(took time.Duration) string {
	return fmt.Sprintf(`# Benchmarks

Written by `+"`make bench`"+` on %s, in %d minutes. Every contender of a chapter runs in turn, A B C A B C, and the
medians are compared: read the ratios, absolute times belong to this machine and this hour. CPU is that of the command,
daemons, shims and containers together, while the command ran and for 60 ms after its answer, so what is put off counts too.
What the kernel does on its own threads, such as taking a network namespace down, is in nobody's figure.

%s
## The budget

| | against | ours | theirs | ratio | Must | Aim | |
| --- | --- | --: | --: | --: | --: | --: | --- |
%s%s`, time.Now().UTC().Format("2006-01-02"), int(took.Minutes()+0.5), r.machine, r.budget.String(), r.text.String())
}

// describe says what the figures belong to; the cgroup mounts as they are before
// the bench changes them.
func describe(tb testing.TB, peers []tool) string {
	tb.Helper()
	mem, err := field("/proc/meminfo", "MemTotal:")
	if err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "- Machine: %s, %d CPUs, %.0f GiB, %s, %s, %s.\n", cpuModel(), runtime.NumCPU(), mem/(1<<20), tool{"uname", "-sr"}.says(tb), cgroups(), runtime.Version())
	b.WriteString("- Stores of all: one ext4 with a journal, its blocks in memory; state of the daemons: tmpfs.\n- Peers: ")
	for i, p := range peers {
		out, err := exec.Command(p[0], p[1:]...).Output()
		if err != nil {
			tb.Fatalf("%s: %v", strings.Join(p, " "), err)
		}
		first, _, _ := strings.Cut(string(out), "\n")
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(strings.TrimSpace(first))
	}
	b.WriteString(".\n")
	return b.String()
}

func cgroups() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "cgroup v2"
	}
	if _, err := os.Stat(unified); err == nil {
		return "cgroup v1 (a v2 mount without the usual controllers, which crun refuses, is out of sight of all)"
	}
	return "cgroup v1"
}

func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}
