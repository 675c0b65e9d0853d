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

// report gathers the chapters of docs/benchmarks.md.
type report struct {
	text strings.Builder
}

// bound is a line of the budget: ours against a peer, at most must.
type bound struct {
	against string
	what    string // "wall", "CPU" or a unit
	must    float64
	aim     float64
}

// chapter writes a table of samples, the first being ours, and how ours stands to
// each bound.
func (r *report) chapter(tb testing.TB, title string, samples []sample, bounds ...bound) {
	tb.Helper()
	fmt.Fprintf(&r.text, "\n## %s\n\n| | wall ms | CPU ms | ours / theirs, wall | ours / theirs, CPU |\n| --- | --: | --: | --: | --: |\n", title)
	ours := samples[0]
	for _, s := range samples {
		fmt.Fprintf(&r.text, "| %s | %.1f | %.1f | %.2f | %.2f |\n", s.name, s.wallMedian(), s.cpuMedian(),
			ours.wallMedian()/s.wallMedian(), ours.cpuMedian()/s.cpuMedian())
	}
	for _, b := range bounds {
		for _, s := range samples {
			if s.name != b.against {
				continue
			}
			ratio := ours.wallMedian() / s.wallMedian()
			if b.what == "CPU" {
				ratio = ours.cpuMedian() / s.cpuMedian()
			}
			r.verdict(tb, title, b, ratio)
		}
	}
}

func (r *report) verdict(tb testing.TB, title string, b bound, ratio float64) {
	word := "reached"
	if ratio > b.must {
		word = "**missed**"
	} else if ratio <= b.aim {
		word = "reached, and the aim too"
	}
	line := fmt.Sprintf("%s against %s: %.3f, must be at most %.2f (aim %.2f): %s.", b.what, b.against, ratio, b.must, b.aim, word)
	fmt.Fprintf(&r.text, "\n%s\n", strings.ToUpper(line[:1])+line[1:])
	tb.Logf("%s: %s", title, line)
}

// row writes one line of a table made by hand.
func (r *report) row(format string, args ...any) { fmt.Fprintf(&r.text, format+"\n", args...) }

func (r *report) write(tb testing.TB, file string) {
	tb.Helper()
	if file == "" {
		tb.Log(r.text.String())
		return
	}
	head := fmt.Sprintf(`# Benchmarks

Written by `+"`make bench`"+` on %s. Medians of %d interleaved runs of each contender; CPU is that of
commands, daemons, shims and containers together while the command ran and for 60 ms after it, so what is done after the
answer counts.
Read the ratios: absolute times belong to this machine and this hour.

Machine: %s, %d CPUs, %s; %s. Peers: %s.
`, time.Now().UTC().Format("2006-01-02"), *runs, cpuModel(), runtime.NumCPU(), said("uname", "-sr"), cgroups(), strings.Join(peerVersions(), ", "))
	if err := os.WriteFile(file, []byte(head+r.text.String()), 0o644); err != nil {
		tb.Fatal(err)
	}
}

func said(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return name + " (?)"
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(first)
}

func cgroups() string {
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		return "cgroup version 2"
	}
	return "cgroup version 1"
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

func peerVersions() []string {
	return []string{
		said("/usr/local/bin/docker", "--version"), said("/usr/sbin/dockerd", "--version"), said("containerd", "--version"),
		said("podman", "--version"), said("runc", "--version"), said("crun", "--version"),
	}
}
