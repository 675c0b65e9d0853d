package bench

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

// BenchmarkAgainstTheStockStack writes docs/benchmarks.md.
func BenchmarkAgainstTheStockStack(b *testing.B) {
	w, r := newWorld(b), &report{}
	for _, c := range []struct {
		title   string
		measure func(*world, *report, testing.TB, string)
	}{
		{"The runtime alone: run", (*world).runtimeRun},
		{"The runtime alone: create, start, kill, delete", (*world).runtimeLife},
		{"Start `true` with the default bridge network", (*world).runBridge},
		{"Start `true` with no network, against the bare runtimes too", (*world).runAlone},
		{"exec", (*world).exec},
		{"The command line alone: version", (*world).version},
		{"Pull and unpack an image of 300 MB from a registry on loopback", (*world).pull},
		{"Many containers, 8 started at a time, and their memory", (*world).crowd},
	} {
		if *only == "" || strings.Contains(c.title, *only) {
			b.Log(c.title)
			c.measure(w, r, b, c.title)
		}
	}
	r.write(b, *reportFile)
}

func (w *world) runtimeRun(r *report, tb testing.TB, title string) {
	run := func(name, program, bundle string) contender {
		return sh(name, program, "--root", filepath.Join(w.gantryd.Dir, "rt"), "run", "--bundle", bundle, "bench")
	}
	r.chapter(tb, title+", docker's seccomp profile", interleave(tb, *runs,
		run("gantry-runtime run", w.runtime, w.bundle),
		run("runc run", rig.Peer(tb, "runc"), w.bundle),
		run("crun run", rig.Peer(tb, "crun"), w.bundle),
	), bound{"crun run", "wall", 0.40, 0.25}, bound{"runc run", "wall", 0.30, 0.18})
	r.chapter(tb, title+", no seccomp", interleave(tb, *runs,
		run("gantry-runtime run", w.runtime, w.plain),
		run("runc run", rig.Peer(tb, "runc"), w.plain),
		run("crun run", rig.Peer(tb, "crun"), w.plain),
	))
}

func (w *world) runtimeLife(r *report, tb testing.TB, title string) {
	sleeper := w.sleeper(tb) // a program that ends by itself might be gone before the kill
	life := func(name, program string) contender {
		root := []string{"--root", filepath.Join(w.gantryd.Dir, "rt")}
		return contender{name, func(tb testing.TB) {
			for _, step := range [][]string{{"create", "--bundle", sleeper}, {"start"}, {"kill"}, {"delete", "--force"}} {
				args := append(append(root[:2:2], step...), "bench")
				if step[0] == "kill" {
					args = append(args, "KILL")
				}
				quiet(tb, program, args...)
			}
		}}
	}
	r.chapter(tb, title, interleave(tb, *runs,
		life("gantry-runtime", w.runtime), life("runc", rig.Peer(tb, "runc")), life("crun", rig.Peer(tb, "crun")),
	), bound{"crun", "wall", 0.45, 0.30}, bound{"runc", "wall", 0.35, 0.20})
}

func (w *world) runBridge(r *report, tb testing.TB, title string) {
	r.chapter(tb, title, interleave(tb, *runs, w.gantryRun(busybox, "true"), w.dockerRun(busybox, "true"), w.podmanRun(busybox, "true")),
		bound{"docker run --rm", "wall", 0.08, 0.04}, bound{"docker run --rm", "CPU", 0.10, 0.05})
}

func (w *world) runAlone(r *report, tb testing.TB, title string) {
	none := []string{"--network", "none", busybox, "true"}
	root := filepath.Join(w.gantryd.Dir, "rt")
	var n atomic.Int64
	r.chapter(tb, title, interleave(tb, *runs,
		w.gantryRun(none...), w.dockerRun(none...), w.podmanRun(none...),
		contender{"ctr run --rm", func(tb testing.TB) {
			rig.Must(tb, rig.Ctr(tb, w.host, w.ctr.Address, "default", "run", "--rm", "docker.io/library/"+busybox, fmt.Sprintf("b%d", n.Add(1)), "true"))
		}},
		sh("runc run", rig.Peer(tb, "runc"), "--root", root, "run", "--bundle", w.bundle, "bench"),
		sh("crun run", rig.Peer(tb, "crun"), "--root", root, "run", "--bundle", w.bundle, "bench"),
	), bound{"docker run --rm", "wall", 0.08, 0.04}, bound{"runc run", "wall", 0.5, 0.22}, bound{"crun run", "wall", 0.7, 0.35})
}

func (w *world) exec(r *report, tb testing.TB, title string) {
	rig.Must(tb, w.gantryd.Gantry(tb, "run", "-d", "--name", "idle", busybox, "sleep", "10000"))
	rig.Must(tb, w.dockerd.Docker(tb, "run", "-d", "--name", "idle", busybox, "sleep", "10000"))
	root := filepath.Join(w.gantryd.Dir, "rc")
	sleeper := w.sleeper(tb)
	for _, p := range []string{"runc", "crun"} {
		quiet(tb, rig.Peer(tb, p), "--root", root+p, "run", "--detach", "--bundle", sleeper, "idle"+p)
	}
	r.chapter(tb, title, interleave(tb, *runs,
		sh("gantry exec", w.gantry, "-H", "unix://"+w.gantryd.Socket, "exec", "idle", "true"),
		sh("docker exec", w.docker, "-H", "unix://"+w.dockerd.Socket, "exec", "idle", "true"),
		sh("runc exec", rig.Peer(tb, "runc"), "--root", root+"runc", "exec", "idlerunc", "true"),
		sh("crun exec", rig.Peer(tb, "crun"), "--root", root+"crun", "exec", "idlecrun", "true"),
	), bound{"docker exec", "wall", 0.25, 0.12}, bound{"crun exec", "wall", 1.0, 0.6})
	for _, p := range []string{"runc", "crun"} {
		quiet(tb, rig.Peer(tb, p), "--root", root+p, "delete", "--force", "idle"+p)
	}
	rig.Must(tb, w.gantryd.Gantry(tb, "rm", "-f", "idle"))
	rig.Must(tb, w.dockerd.Docker(tb, "rm", "-f", "idle"))
}

// sleeper is the bundle with a program that stays.
func (w *world) sleeper(tb testing.TB) string {
	dir := filepath.Join(rig.Dir(tb), "sleeper")
	rig.Must(tb, exec.Command("sh", "-c", fmt.Sprintf(`mkdir %s && jq '.process.args = ["sleep", "10000"] | .linux.cgroupsPath = null' %s/config.json > %s/config.json`, dir, w.bundle, dir)))
	return dir
}

func (w *world) version(r *report, tb testing.TB, title string) {
	r.chapter(tb, title, interleave(tb, *runs,
		sh("gantry version", w.gantry, "-H", "unix://"+w.gantryd.Socket, "version"),
		sh("docker version", w.docker, "-H", "unix://"+w.dockerd.Socket, "version"),
	), bound{"docker version", "wall", 0.4, 0.25})
}

func (w *world) pull(r *report, tb testing.TB, title string) {
	ref := w.registry.Push(tb, rig.Big(tb), "big:latest")
	n := max(5, *runs/6)
	forget := func(cmd *exec.Cmd) { rig.Must(tb, cmd) }
	gantry := contender{"gantry pull", func(tb testing.TB) { rig.Must(tb, w.gantryd.Gantry(tb, "pull", "-q", ref)) }}
	docker := contender{"docker pull", func(tb testing.TB) { rig.Must(tb, w.dockerd.Docker(tb, "pull", "-q", ref)) }}
	ctr := contender{"ctr images pull", func(tb testing.TB) {
		rig.Must(tb, rig.Ctr(tb, w.host, w.ctr.Address, "default", "images", "pull", "--plain-http", ref))
	}}
	podman := contender{"podman pull", func(tb testing.TB) {
		quiet(tb, w.podman[0], append(w.podman[1:len(w.podman):len(w.podman)], "pull", "-q", "--tls-verify=false", ref)...)
	}}
	// Each run starts without the image; taking it away is not measured.
	samples := make([]sample, 4)
	for i := range n + 1 {
		for j, c := range []contender{gantry, docker, ctr, podman} {
			s := once(tb, c)
			samples[j].name = c.name
			if i > 0 {
				samples[j].wall, samples[j].cpu = append(samples[j].wall, s.wall[0]), append(samples[j].cpu, s.cpu[0])
			}
		}
		forget(w.gantryd.Gantry(tb, "rmi", ref))
		forget(w.dockerd.Docker(tb, "rmi", ref))
		forget(rig.Ctr(tb, w.host, w.ctr.Address, "default", "images", "rm", "--sync", ref))
		quiet(tb, w.podman[0], append(w.podman[1:len(w.podman):len(w.podman)], "rmi", ref)...)
		rig.Eventually(tb, 10*time.Second, func() error { return gone(w.gantryd.Dir) })
	}
	r.chapter(tb, title, samples, bound{"docker pull", "wall", 0.40, 0.25}, bound{"ctr images pull", "wall", 0.45, 0.28})
}

// gone says whether garbage collection has taken the big image's blobs away.
func gone(dir string) error {
	out, err := exec.Command("find", filepath.Join(dir, "r/containerd/io.containerd.content.v1.content/blobs"), "-size", "+10M").Output()
	if err == nil && len(out) > 0 {
		err = fmt.Errorf("blobs are still there: %s", out)
	}
	return err
}

// crowd starts many containers, 8 at a time, and reads what they hold.
func (w *world) crowd(r *report, tb testing.TB, title string) {
	r.row("\n## %s\n\n%d containers of `sleep`, with the default bridge network.\n", title, *many)
	r.row("| | seconds to start all | CPU ms for each | MemAvailable taken by each, kB | PSS of each shim, kB | daemons, RSS MB before | daemons, PSS MB with all running |")
	r.row("| --- | --: | --: | --: | --: | --: | --: |")
	crowds := []struct {
		name, shim string
		daemons    []string
		start      func(tb testing.TB, i int)
		remove     func(tb testing.TB)
	}{
		{
			"gantry", "containerd-shim-gantry-v2",
			[]string{"gantryd"},
			func(tb testing.TB, i int) {
				quiet(tb, w.gantry, "-H", "unix://"+w.gantryd.Socket, "run", "-d", "--name", fmt.Sprintf("c%d", i), busybox, "sleep", "100000")
			},
			func(tb testing.TB) { w.removeAll(tb, w.gantry, w.gantryd.Socket) },
		},
		{
			"docker", "containerd-shim-runc-v2",
			[]string{"dockerd", "containerd"},
			func(tb testing.TB, i int) {
				quiet(tb, w.docker, "-H", "unix://"+w.dockerd.Socket, "run", "-d", "--name", fmt.Sprintf("c%d", i), busybox, "sleep", "100000")
			},
			func(tb testing.TB) { w.removeAll(tb, w.docker, w.dockerd.Socket) },
		},
		{
			"ctr, no network", "containerd-shim-runc-v2",
			nil,
			func(tb testing.TB, i int) {
				rig.Must(tb, rig.Ctr(tb, w.host, w.ctr.Address, "default", "run", "-d", "docker.io/library/"+busybox, fmt.Sprintf("c%d", i), "sleep", "100000"))
			},
			func(tb testing.TB) {
				for i := range *many {
					rig.Run(tb, rig.Ctr(tb, w.host, w.ctr.Address, "default", "task", "rm", "-f", fmt.Sprintf("c%d", i)))
					rig.Run(tb, rig.Ctr(tb, w.host, w.ctr.Address, "default", "container", "rm", fmt.Sprintf("c%d", i)))
				}
			},
		},
	}
	type outcome struct{ wall, mem, pss, idle float64 }
	got := map[string]outcome{}
	for _, c := range crowds {
		idle := 0.0
		for _, d := range c.daemons {
			idle += largest(byProgram("Rss", d))
		}
		free := memAvailable(tb)
		cpu, start := usedCPU(tb), time.Now()
		eightAtATime(*many, func(i int) { c.start(tb, i) })
		wall, used := time.Since(start).Seconds(), ms(usedCPU(tb)-cpu)/float64(*many)
		time.Sleep(2 * time.Second)
		o := outcome{wall, (free - memAvailable(tb)) / float64(*many), median(byProgram("Pss", c.shim)), idle / 1024}
		busy := 0.0
		for _, d := range c.daemons {
			busy += largest(byProgram("Pss", d))
		}
		r.row("| %s | %.1f | %.0f | %.0f | %.0f | %.0f | %.0f |", c.name, o.wall, used, o.mem, o.pss, o.idle, busy/1024)
		got[c.name] = o
		c.remove(tb)
	}
	ours, docker, ctr := got["gantry"], got["docker"], got["ctr, no network"]
	r.verdict(tb, title, bound{"docker", "seconds to start all", 0.2, 0.1}, ours.wall/docker.wall)
	r.verdict(tb, title, bound{"ctr", "seconds to start all", 0.4, 0.2}, ours.wall/ctr.wall)
	r.verdict(tb, title, bound{"1 MB", "PSS of a shim", 1.5, 1.0}, ours.pss/1024)
	r.verdict(tb, title, bound{"docker", "MemAvailable for each", 0.45, 0.3}, ours.mem/docker.mem)
	r.verdict(tb, title, bound{"dockerd and containerd", "idle daemon RSS", 0.5, 0.3}, ours.idle/docker.idle)
}

func (w *world) removeAll(tb testing.TB, cli, socket string) {
	for i := 0; i < *many; i += 20 {
		args := []string{"-H", "unix://" + socket, "rm", "-f"}
		for j := i; j < min(i+20, *many); j++ {
			args = append(args, fmt.Sprintf("c%d", j))
		}
		quiet(tb, cli, args...)
	}
}

// largest picks the daemon among processes of its name: docker's own containerd,
// which is busier than the idle one of the ctr chapter.
func largest(v []float64) float64 {
	m := 0.0
	for _, x := range v {
		m = max(m, x)
	}
	return m
}

func eightAtATime(n int, do func(int)) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				do(int(i))
			}
		})
	}
	wg.Wait()
}
