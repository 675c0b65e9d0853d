package torture

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

// How many of each, and how long a daemon lives.
const (
	dockers, containerds = 3, 2
	shortLife, longLife  = 100 * time.Millisecond, 3 * time.Second
	shimLife             = 1500 * time.Millisecond
	phoenixes            = 2
)

// world is the daemon that is tortured, and who tortures it.
type world struct {
	t      *testing.T
	daemon *rig.Gantryd
	host   *rig.Host
	seed   uint64

	mu     sync.Mutex
	prey   map[string]bool // containers whose shims may be killed
	killed map[string]int  // how often they were

	kills, shimKills int
	answers          atomic.Int64 // that clients got
}

func TestNothingThatWasToldIsUntrueAfterAnyKill(t *testing.T) {
	w := newWorld(t)
	t.Logf("seed %d", w.seed)
	d := newDocker(w, 100)
	d.load()
	seen := newDieWatch(w)
	steady := d.steady()
	for i := range phoenixes {
		d.phoenix(i)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	time.AfterFunc(time.Duration(*seconds)*time.Second, func() { w.stopWhenEnough(cancel) })
	var work sync.WaitGroup
	var docks []*docker
	for i := range dockers {
		c := newDocker(w, i)
		docks = append(docks, c)
		work.Go(func() { c.work(ctx) })
	}
	base := newNative(w, 100)
	base.unpackBase()
	var natives []*native
	for i := range containerds {
		c := newNative(w, i)
		natives = append(natives, c)
		work.Go(func() { c.work(ctx) })
	}
	work.Go(func() { w.killShims(ctx) })
	w.killDaemon(ctx)
	work.Wait()
	t.Logf("%d kills of gantryd, %d of shims, %d answers", w.kills, w.shimKills, w.answers.Load())
	if w.answers.Load() < enough {
		t.Errorf("%d answers say little; at least %d were to be", w.answers.Load(), enough)
	}

	w.checkBlobs()
	d.checkSteady(steady)
	docks = append(docks, d)
	for _, c := range docks {
		c.testify()
	}
	for _, c := range natives {
		c.testify()
	}
	seen.check(docks)
	for _, c := range docks {
		c.clear()
	}
	for _, c := range append(natives, base) {
		c.clear()
	}
	d.nothingLeft()
	base.nothingLeft()
	seen.stop()
	w.checkProcesses()
	w.daemon.Stop()
	w.checkState()
	w.checkStores()
}

// enough is how many answers say something, however slow the machine is.
const enough = 300

// stopWhenEnough stops the work once there are enough answers, or when there are none
// to be had.
func (w *world) stopWhenEnough(stop func()) {
	for end := time.Now().Add(2 * time.Minute); w.answers.Load() < enough && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	stop()
}

func newWorld(t *testing.T) *world {
	host := rig.NewHost(t)
	w := &world{t: t, daemon: rig.StartGantryd(t, host), host: host, seed: *seed, prey: map[string]bool{}, killed: map[string]int{}}
	if w.seed == 0 {
		w.seed = rand.Uint64()
	}
	t.Cleanup(func() {
		if *logFile == "" {
			return
		}
		data, err := os.ReadFile(w.daemon.Log)
		if err == nil {
			err = os.WriteFile(*logFile, data, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	})
	// What a failed test leaves would make the next one fail.
	t.Cleanup(func() {
		if t.Failed() {
			for _, pid := range w.shims("") {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	})
	return w
}

func (w *world) rand(n int) *rand.Rand { return rand.New(rand.NewPCG(w.seed, uint64(n))) }

// killDaemon kills and starts gantryd until ctx ends, and leaves it running.
func (w *world) killDaemon(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(shortLife + rand.N(longLife)):
		}
		w.daemon.Kill()
		w.kills++
		w.daemon.Start(w.t)
	}
}

// killShims kills the shim of a container, now and then.
func (w *world) killShims(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(rand.N(2 * shimLife)):
		}
		w.mu.Lock()
		for id := range w.prey { // in random order
			if pids := w.shims(id); len(pids) == 1 {
				// Told of before it is done: who sees the end must know the cause.
				w.killed[id]++
				if syscall.Kill(pids[0], syscall.SIGKILL) == nil {
					w.shimKills++
				}
				break
			}
		}
		w.mu.Unlock()
	}
}

// hunt lets the shim of id be killed from now on, or no longer.
func (w *world) hunt(id string, yes bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if yes {
		w.prey[id] = true
	} else {
		delete(w.prey, id)
	}
}

// wasKilled says how often the shim of id was killed.
func (w *world) wasKilled(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.killed[id]
}

// shims finds the shims of the daemon, of one container or of all.
func (w *world) shims(id string) (pids []int) {
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // ended meanwhile
		}
		args := strings.Split(string(data), "\x00")
		if !strings.Contains(args[0], "containerd-shim") || !contains(args, w.daemon.ContainerdAddress) || id != "" && !contains(args, id) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}
