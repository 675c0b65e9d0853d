package bench

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/test/rig"
)

// pull starts each run without the image and with nothing to write back.
func (w *world) pull(r *report, tb testing.TB, title string) {
	ref := w.registry.Push(tb, rig.Big(tb), "big:latest")
	unix.Sync()
	of := func(name string, c tool, pull, remove []string, settled func() error) contender {
		return contender{name, func() error { return c.with(pull...).try(ref) }, func() {
			c.with(remove...).do(tb, ref)
			if settled != nil {
				rig.Eventually(tb, settled)
			}
			unix.Sync()
		}}
	}
	docker, ctr := []string{"pull", "-q"}, []string{"images", "pull", "--plain-http"}
	ctrForgets := []string{"images", "rm", "--sync"}
	samples := interleave(tb, *pulls,
		of("gantry pull", w.gantry, docker, []string{"rmi"}, func() error { return gone(w.gantryd.Dir) }),
		of("docker pull", w.docker, docker, []string{"rmi"}, nil),
		of("podman pull", w.podman, append(docker, "--tls-verify=false"), []string{"rmi"}, nil),
		of("Debian's ctr on lifecycle", w.ctrOurs, ctr, ctrForgets, func() error { return gone(w.lifecycle.Dir) }),
		of("Debian's ctr on Debian's containerd", w.ctr, ctr, ctrForgets, nil),
		of("current ctr on current containerd", w.newCtr, ctr, ctrForgets, nil),
	)
	r.chapter(tb, title, samples, bound{"docker pull", false, 0.40, 0.25},
		bound{"Debian's ctr on Debian's containerd", false, 0.45, 0.28}, bound{"current ctr on current containerd", false, 0.45, 0.28})
}

// gone says whether garbage collection has taken the big image's blobs away.
func gone(dir string) error {
	out, err := exec.Command("find", filepath.Join(dir, "r"), "-type", "f", "-path", "*/blobs/*", "-size", "+10M").Output()
	if err == nil && len(out) > 0 {
		err = fmt.Errorf("blobs are still there: %s", out)
	}
	return err
}
