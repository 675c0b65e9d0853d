package bench

import (
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

// BenchmarkAgainstTheStockStack writes docs/benchmarks.md.
func BenchmarkAgainstTheStockStack(b *testing.B) {
	start, r := time.Now(), &report{}
	w := newWorld(b, r)
	for _, c := range []struct {
		title   string
		measure func(*world, *report, testing.TB, string)
	}{
		{"Idle daemons", (*world).idle},
		{"Start `true` in a container, whole", (*world).run},
		{"exec of `true`", (*world).exec},
		{"The runtime alone: run", (*world).runtimeRun},
		{"The runtime alone: create, start, kill, delete", (*world).runtimeLife},
		{"The runtime alone: peak memory", (*world).runtimeMemory},
		{"The command line alone: version", (*world).version},
		{"Lifecycle under the same ctr: run", (*world).lifecycleRun},
		{"Pull and unpack an image of 300 MB from a registry on loopback", (*world).pull},
		{"A crowd of containers, 8 started at a time", (*world).crowd},
		{"A crowd of containers, all started at once", (*world).rush},
		{"The runtime alone: containers in a row", (*world).inARow},
		{"A container that prints without end", (*world).logs},
		{"Ten thousand blobs", (*world).tenThousand},
		{"A daemon killed and started again, with many containers", (*world).restart},
	} {
		if *only == "" || strings.Contains(c.title, *only) {
			fmt.Fprintf(os.Stderr, "%3.0f s: %s\n", time.Since(start).Seconds(), c.title)
			c.measure(w, r, b, c.title)
			if *reportFile != "" { // now: what comes later may fail
				if err := os.WriteFile(*reportFile, []byte(r.page(time.Since(start))), 0o644); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	if *reportFile == "" {
		fmt.Print("\n", r.page(time.Since(start)))
	}
}

// idle reads what daemons hold that have an image, ran a container, and have
// nothing to do.
func (w *world) idle(r *report, tb testing.TB, title string) {
	name := names()
	w.gantry.do(tb, "run", "--rm", busybox, "true")
	w.docker.do(tb, "run", "--rm", busybox, "true")
	w.ctrOurs.do(tb, "run", "--rm", "--runtime", "io.containerd.gantry.v2", ctrImage, name(), "true")
	w.ctr.do(tb, "run", "--rm", ctrImage, name(), "true")
	w.newCtr.do(tb, "run", "--rm", ctrImage, name(), "true")
	time.Sleep(10 * time.Second)
	ours, docker := resident(tb, w.ourDaemons...), resident(tb, w.dockerDaemons...)
	life, old, current := resident(tb, w.lifecycle.Cmd.Process.Pid), resident(tb, w.containerd.Cmd.Process.Pid), resident(tb, w.current.Cmd.Process.Pid)
	r.row("\n## %s\n\nWith one image, ten seconds after a container ran.\n", title)
	r.row("| | RSS MB |\n| --- | --: |")
	r.row("| gantryd | %.1f |\n| dockerd with its containerd | %.1f |", ours, docker)
	r.row("| gantryd --roles lifecycle | %.1f |\n| containerd, Debian's | %.1f |\n| containerd, current | %.1f |", life, old, current)
	r.verdict("idle gantryd, RSS", "dockerd and its containerd", "MB", ours, docker, 0.5, 0.3)
	r.verdict("idle lifecycle, RSS", "containerd, Debian's", "MB", life, old, 0.5, 0.3)
	r.verdict("idle lifecycle, RSS", "containerd, current", "MB", life, current, 0.5, 0.3)
}

// run is one chapter with both networks, so that all stand in one interleaved run.
func (w *world) run(r *report, tb testing.TB, title string) {
	name := names()
	samples := interleave(tb, *runs,
		w.gantry.as("gantry run, bridge", "run", "--rm", busybox, "true"),
		w.docker.as("docker run, bridge", "run", "--rm", busybox, "true"),
		w.podmanRun("--rm", busybox, "true").as("podman run, bridge"),
		w.gantry.as("gantry run, no network", "run", "--rm", "--network", "none", busybox, "true"),
		w.docker.as("docker run, no network", "run", "--rm", "--network", "none", busybox, "true"),
		w.podmanRun("--rm", "--network", "none", busybox, "true").as("podman run, no network"),
		contender{name: "ctr run, no network", run: func() error { return w.ctr.try("run", "--rm", ctrImage, name(), "true") }},
		w.runc.as("runc run", "run", "--bundle", w.bundle, "bench"),
		w.crun.as("crun run", "run", "--bundle", w.bundle, "bench"),
	)
	r.chapter(tb, title+", with the default bridge network", samples,
		bound{"docker run, bridge", false, 0.08, 0.04}, bound{"docker run, bridge", true, 0.10, 0.05},
		bound{"runc run", false, 0.5, 0.22}, bound{"crun run", false, 0.7, 0.35})
	r.chapter(tb, title+", with no network (of the same interleaved run)", samples[3:], bound{"docker run, no network", false, 0.08, 0.04})

	r.row("\n### One start, explained\n\nThe journey of one `gantry run --explain` with the bridge network, as the parts themselves tell it.\n")
	journey := w.gantry.tells(tb, "run", "--explain", "--name", "explained", busybox, "true")
	root, err := rig.Root()
	if err != nil {
		tb.Fatal(err)
	}
	r.row("```\n%s\n```", strings.ReplaceAll(journey, root+"/", "")) // the report is not of one checkout
	w.gantry.do(tb, "rm", "explained")
}

func (w *world) exec(r *report, tb testing.TB, title string) {
	for _, c := range []tool{w.gantry, w.docker} {
		c.do(tb, "run", "-d", "--name", "idle", busybox, "sleep", "10000")
	}
	w.podmanRun("-d", "--name", "idle", busybox, "sleep", "10000").do(tb)
	w.ctr.do(tb, "run", "-d", ctrImage, "idle", "sleep", "10000")
	for _, c := range []tool{w.runtime, w.runc, w.crun} {
		c.do(tb, "run", "--detach", "--bundle", w.sleeper, "idle"+c.base())
		c.do(tb, "run", "--detach", "--bundle", w.plainSleeper, "plain"+c.base())
	}
	name := names()
	bare := func(c tool) contender { return c.as(c.base()+" exec", "exec", "idle"+c.base(), "true") }
	plain := func(c tool) contender { return c.as(c.base()+" exec", "exec", "plain"+c.base(), "true") }
	samples := interleave(tb, *runs,
		w.gantry.as("gantry exec", "exec", "idle", "true"),
		w.docker.as("docker exec", "exec", "idle", "true"),
		w.podman.as("podman exec", "exec", "idle", "true"),
		contender{name: "ctr tasks exec", run: func() error { return w.ctr.try("tasks", "exec", "--exec-id", name(), "idle", "true") }},
		bare(w.runtime), bare(w.runc), bare(w.crun),
		plain(w.runtime), plain(w.runc), plain(w.crun),
	)
	r.chapter(tb, title, samples[:7], bound{"docker exec", false, 0.25, 0.12}, bound{"crun exec", false, 1.0, 0.6})
	r.chapter(tb, title+", the runtime alone, docker's seccomp profile (of the same interleaved run)", samples[4:7])
	r.chapter(tb, title+", the runtime alone, no seccomp (of the same interleaved run)", samples[7:])

	for _, c := range []tool{w.runtime, w.runc, w.crun} {
		c.do(tb, "delete", "--force", "idle"+c.base())
		c.do(tb, "delete", "--force", "plain"+c.base())
	}
	w.ctr.do(tb, "tasks", "rm", "-f", "idle")
	w.ctr.do(tb, "containers", "rm", "idle")
	w.podman.do(tb, "rm", "-f", "-t", "0", "idle") // it would wait for the sleeper to obey
	for _, c := range []tool{w.gantry, w.docker} {
		c.do(tb, "rm", "-f", "idle")
	}
}

func (w *world) runtimeRun(r *report, tb testing.TB, title string) {
	run := func(c tool, bundle string) contender {
		return c.as(c.base()+" run", "run", "--bundle", bundle, "bench")
	}
	r.chapter(tb, title+", docker's seccomp profile", interleave(tb, *runs, run(w.runtime, w.bundle), run(w.runc, w.bundle), run(w.crun, w.bundle)),
		bound{"crun run", false, 0.40, 0.25}, bound{"runc run", false, 0.30, 0.18})
	r.chapter(tb, title+", no seccomp", interleave(tb, *runs, run(w.runtime, w.plain), run(w.runc, w.plain), run(w.crun, w.plain)))
}

func (w *world) runtimeLife(r *report, tb testing.TB, title string) {
	life := func(c tool, bundle string) contender { // of a program that stays: another might be gone before the kill
		return contender{name: c.base() + " create, start, kill, delete", run: func() error {
			for _, step := range [][]string{{"create", "--bundle", bundle, "bench"}, {"start", "bench"}, {"kill", "bench", "KILL"}, {"delete", "--force", "bench"}} {
				if err := c.try(step...); err != nil {
					return err
				}
			}
			return nil
		}}
	}
	r.chapter(tb, title+", docker's seccomp profile", interleave(tb, *runs, life(w.runtime, w.sleeper), life(w.runc, w.sleeper), life(w.crun, w.sleeper)),
		bound{"crun create, start, kill, delete", false, 0.45, 0.30}, bound{"runc create, start, kill, delete", false, 0.35, 0.20})
	r.chapter(tb, title+", no seccomp", interleave(tb, *runs, life(w.runtime, w.plainSleeper), life(w.runc, w.plainSleeper), life(w.crun, w.plainSleeper)))
}

func (w *world) version(r *report, tb testing.TB, title string) {
	r.chapter(tb, title, interleave(tb, *runs, w.gantry.as("gantry version", "version"), w.docker.as("docker version", "version")),
		bound{"docker version", false, 0.4, 0.25})
}

// lifecycleRun has the same ctr on both sides; the shim and the runtime are ours on ours.
func (w *world) lifecycleRun(r *report, tb testing.TB, title string) {
	name := names()
	run := func(who string, c tool, flags ...string) contender {
		return contender{name: who, run: func() error {
			return c.with("run", "--rm").with(flags...).try(ctrImage, name(), "true")
		}}
	}
	ours := []string{"--runtime", "io.containerd.gantry.v2"}
	samples := interleave(tb, *runs,
		run("Debian's ctr on lifecycle", w.ctrOurs, ours...), run("Debian's ctr on Debian's containerd", w.ctr),
		run("current ctr on lifecycle", w.newCtrOurs, ours...), run("current ctr on current containerd", w.newCtr),
	)
	r.chapter(tb, title+", Debian's", samples[:2], bound{"Debian's ctr on Debian's containerd", false, 0.35, 0.35})
	r.chapter(tb, title+", current", samples[2:], bound{"current ctr on current containerd", false, 0.35, 0.35})
}

// names makes names of containers and execs that no run had before.
func names() func() string {
	n := allNames.Add(1000)
	return func() string { n++; return fmt.Sprintf("b%d", n) }
}

var allNames atomic.Int64
