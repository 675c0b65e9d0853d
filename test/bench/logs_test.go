package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// logs has a container print lines as fast as somebody takes them, into json-file
// logs that rotate, and reads memory all the while.
func (w *world) logs(r *report, tb testing.TB, title string) {
	r.row("\n## %s\n\n%d MB of lines of 100 bytes into json-file logs that rotate at 50 MB. Memory is read every 20 ms.\n", title, *printed)
	r.row("| | MB/s | CPU ms for each MB | its shim, first and most, RSS MB | the daemons, first and most, RSS MB |\n| --- | --: | --: | --: | --: |")
	script := fmt.Sprintf("until [ -e /go ]; do sleep .02; done; yes %0*d | head -c %dm && touch /done; sleep 10000", 99, 0, *printed)
	for _, c := range []struct {
		tool
		shim    string
		daemons []int
	}{{w.gantry, "containerd-shim-gantry-v2", w.ourDaemons}, {w.docker, "containerd-shim-runc-v2", w.dockerDaemons}} {
		before := running(c.shim)
		c.do(tb, "run", "-d", "--name", "loud", "--network", "none", "--log-driver", "json-file", "--log-opt", "max-size=50m", "--log-opt", "max-file=2", busybox, "sh", "-c", script)
		shims := slices.DeleteFunc(running(c.shim), func(pid int) bool { return slices.Contains(before, pid) })
		if len(shims) != 1 {
			tb.Fatalf("%s: new shims %v of one container", c.base(), shims)
		}
		look := func() (float64, float64) { return resident(tb, shims...), resident(tb, c.daemons...) }
		shim, daemon := look()
		mostShim, mostDaemon := shim, daemon
		done := make(chan error, 1)
		cpu, start := usedCPU(tb), time.Now()
		go func() {
			done <- c.try("exec", "loud", "sh", "-c", "touch /go; until [ -e /done ]; do sleep .02; done")
		}()
		for ended := false; !ended; {
			select {
			case err := <-done:
				if err != nil {
					tb.Fatalf("%s is broken here: %v", c.base(), err)
				}
				ended = true
			case <-time.After(20 * time.Millisecond):
				s, d := look()
				mostShim, mostDaemon = max(mostShim, s), max(mostDaemon, d)
			}
		}
		took := time.Since(start).Seconds()
		r.row("| %s | %.0f | %.1f | %.1f, %.1f | %.1f, %.1f |", c.base(), float64(*printed)/took, ms(usedCPU(tb)-cpu)/float64(*printed), shim, mostShim, daemon, mostDaemon)
		c.do(tb, "rm", "-f", "loud")
	}
}
