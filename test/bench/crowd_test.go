package bench

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// settle is how long daemons and the kernel may take to give back what starting
// and removing took, before memory is read: what containers hold as they run is
// the question.
const settle = 8 * time.Second

// crowd is a way to have many containers.
type crowd struct {
	name   string
	shim   string // the program that each container has
	daemon []int
	start  func(name string) error
	remove func(names []string) error
	seen   []figures
}

// figures are what one start of a crowd gave.
type figures struct {
	seconds, cpu float64 // to start all; of each, in milliseconds
	taken        float64 // MemAvailable for each, in kilobytes
	charged      float64 // to the cgroup of the bench for each, in kilobytes
	pss          float64 // of the shim of each, in kilobytes
	daemon       float64 // RSS in megabytes, with all running
}

// crowd starts many containers, 8 at a time, and reads what they hold.
func (w *world) crowd(r *report, tb testing.TB, title string) {
	sleep := func(name string) []string { return []string{"run", "-d", "--name", name, busybox, "sleep", "100000"} }
	removeBy := func(steps ...tool) func([]string) error {
		return func(names []string) error {
			for _, step := range steps {
				if err := step.try(names...); err != nil {
					return err
				}
			}
			return nil
		}
	}
	ctr := func(name string, c tool, daemon int) *crowd {
		return &crowd{
			name: name, shim: "containerd-shim-runc-v2", daemon: []int{daemon},
			start:  func(name string) error { return c.try("run", "-d", ctrImage, name, "sleep", "100000") },
			remove: removeBy(c.with("tasks", "rm", "-f"), c.with("containers", "rm")),
		}
	}
	gantry := &crowd{
		name: "gantry, bridge", shim: "containerd-shim-gantry-v2", daemon: w.ourDaemons,
		start: func(name string) error { return w.gantry.try(sleep(name)...) }, remove: removeBy(w.gantry.with("rm", "-f")),
	}
	docker := &crowd{
		name: "docker, bridge", shim: "containerd-shim-runc-v2", daemon: w.dockerDaemons,
		start: func(name string) error { return w.docker.try(sleep(name)...) }, remove: removeBy(w.docker.with("rm", "-f")),
	}
	old := ctr("Debian's ctr, no network", w.ctr, w.containerd.Cmd.Process.Pid)
	current := ctr("current ctr, no network", w.newCtr, w.current.Cmd.Process.Pid)
	all := []*crowd{gantry, docker, old, current}
	for i := range *crowds {
		for j := range all {
			c := all[(i+j)%len(all)] // each is once the first: what a crowd leaves, the next finds made
			c.seen = append(c.seen, w.once(tb, c))
		}
	}

	r.row("\n## %s\n\n%d containers of `sleep`; medians of %d starts of the whole crowd.\nMemory is read when it has settled, ten seconds after the last start or later, and another contender begins each time. What is charged has processes and what the kernel keeps for them, without page cache and tmpfs; MemAvailable is as if the stores lay on a disk, and moves with everything else on the machine.\n", title, *many, *crowds)
	r.row("| | seconds to start all | CPU ms for each | MemAvailable that each takes, kB | charged to their cgroup for each, kB | PSS of each shim, kB | daemons with all running, RSS MB |\n| --- | --: | --: | --: | --: | --: | --: |")
	for _, c := range all {
		m := c.median()
		r.row("| %s | %.2f | %.1f | %.0f | %.0f | %.0f | %.1f |", c.name, m.seconds, m.cpu, m.taken, m.charged, m.pss, m.daemon)
	}
	ours, theirs := gantry.median(), docker.median()
	what := fmt.Sprintf("%d containers, 8 at a time", *many)
	r.verdict(what, docker.name, "s", ours.seconds, theirs.seconds, 0.2, 0.1)
	r.verdict(what, old.name, "s", ours.seconds, old.median().seconds, 0.4, 0.2)
	r.verdict(what, current.name, "s", ours.seconds, current.median().seconds, 0.4, 0.2)
	r.verdict("MemAvailable for each", docker.name, "kB", ours.taken, theirs.taken, 0.45, 0.3)
	r.absolute("PSS of each shim", "MB", ours.pss/1024, 1.5, 1.0)
}

// rush starts a crowd with as many command lines at once as containers. Memory is
// not read, so nobody waits for it to settle.
func (w *world) rush(r *report, tb testing.TB, title string) {
	names := make([]string, *many)
	for i := range names {
		names[i] = fmt.Sprintf("r%d", i)
	}
	crowd := func(name string, start tool, rest []string, remove ...tool) contender {
		return contender{name, func() error {
			return atATime(len(names), len(names), func(i int) error { return start.with(names[i]).try(rest...) })
		}, func() {
			for _, step := range remove {
				step.do(tb, names...)
			}
		}}
	}
	sleep := []string{"sleep", "100000"}
	ctr := func(name string, c tool, flags ...string) contender {
		return crowd(name, c.with("run", "-d").with(flags...).with(ctrImage), sleep, c.with("tasks", "rm", "-f"), c.with("containers", "rm"))
	}
	ours := []string{"--runtime", "io.containerd.gantry.v2"}
	samples := inTurn(tb, *crowds,
		crowd("gantry, bridge", w.gantry.with("run", "-d", "--name"), append([]string{busybox}, sleep...), w.gantry.with("rm", "-f")),
		ctr("Debian's ctr on lifecycle", w.ctrOurs, ours...), ctr("Debian's ctr on Debian's containerd", w.ctr),
		ctr("current ctr on lifecycle", w.newCtrOurs, ours...), ctr("current ctr on current containerd", w.newCtr),
	)
	r.chapter(tb, title, samples)
	r.chapter(tb, title+", Debian's ctr (of the same run)", samples[1:3])
	r.chapter(tb, title+", current ctr (of the same run)", samples[3:])
}

// once starts the crowd, looks, and ends it.
func (w *world) once(tb testing.TB, c *crowd) figures {
	tb.Helper()
	names := make([]string, *many)
	for i := range names {
		names[i] = fmt.Sprintf("c%d", i)
	}
	free, before := w.settled(tb), charged(tb)
	cpu, start := usedCPU(tb), time.Now()
	if err := atATime(8, len(names), func(i int) error { return c.start(names[i]) }); err != nil {
		tb.Fatalf("%s is broken here: %v", c.name, err)
	}
	took := time.Since(start)
	time.Sleep(2 * time.Second) // what is done after the answer counts too
	used := usedCPU(tb) - cpu
	time.Sleep(settle)
	f := figures{
		seconds: took.Seconds(), cpu: ms(used) / float64(*many),
		taken: (free - w.settled(tb)) / float64(*many), charged: (charged(tb) - before) / float64(*many),
		pss: c.pss(tb), daemon: resident(tb, c.daemon...),
	}
	if err := inLots(names, c.remove); err != nil {
		tb.Fatalf("%s is broken here: %v", c.name, err)
	}
	time.Sleep(settle) // the kernel takes network namespaces down
	return f
}

// settled is what the machine has left, in kilobytes, when that no longer changes
// much: the kernel frees namespaces and cgroups a while after they have gone. It is
// as if the stores lay on a disk, not in memory: what is written there stays there.
func (w *world) settled(tb testing.TB) float64 {
	tb.Helper()
	const much, patience = 1024, 20 // kilobytes in a second; a busy machine does not settle
	disk, last := w.onDisk(), memAvailable(tb)
	for range patience {
		time.Sleep(time.Second)
		now := memAvailable(tb)
		if math.Abs(now-last) < much {
			return now + disk
		}
		last = now
	}
	return last + disk
}

// inLots removes containers, 25 with one command.
func inLots(names []string, remove func([]string) error) error {
	lots := slices.Collect(slices.Chunk(names, 25))
	return atATime(8, len(lots), func(i int) error { return remove(lots[i]) })
}

// pss is the median of the shims; there must be one for each container.
func (c *crowd) pss(tb testing.TB) float64 {
	tb.Helper()
	var all []float64
	for _, pid := range running(c.shim) {
		if kb, err := memory(pid, "Pss"); err == nil {
			all = append(all, kb)
		}
	}
	if len(all) < *many {
		tb.Fatalf("%s: %d shims for %d containers", c.name, len(all), *many)
	}
	return median(all)
}

func (c *crowd) median() figures {
	of := func(get func(figures) float64) float64 {
		var v []float64
		for _, f := range c.seen {
			v = append(v, get(f))
		}
		return median(v)
	}
	return figures{
		seconds: of(func(f figures) float64 { return f.seconds }), cpu: of(func(f figures) float64 { return f.cpu }),
		taken: of(func(f figures) float64 { return f.taken }), charged: of(func(f figures) float64 { return f.charged }),
		pss: of(func(f figures) float64 { return f.pss }), daemon: of(func(f figures) float64 { return f.daemon }),
	}
}
