package joint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// onOurEngine holds both command lines on our engine to check.
func onOurEngine(t *testing.T, check func(t *testing.T, u user)) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host)
	file := archive(t, host)
	for name, cmd := range map[string]func(testing.TB, ...string) *exec.Cmd{"docker": g.Docker, "gantry": g.Gantry} {
		t.Run(name, func(t *testing.T) {
			u := user{host, cmd}
			u.must(t, "load", "-q", "-i", file)
			check(t, u)
		})
	}
}

// Scripts remove the volume, and look for what is left, in the line after the run.
func TestARunThatRemovesItselfHasLetGoOfItsVolumes(t *testing.T) {
	onOurEngine(t, func(t *testing.T, u user) {
		for range 10 {
			u.must(t, "run", "--rm", "-v", "/data", "busybox", "touch", "/data/f")
			if left := u.must(t, "volume", "ls", "-q"); left != "" {
				t.Errorf("left: %s", left)
			}
			u.must(t, "volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "tmp")
			u.must(t, "run", "--rm", "-v", "tmp:/data", "busybox", "touch", "/data/f")
			u.must(t, "volume", "rm", "tmp")
		}
	})
}

func TestNamesOfOtherContainers(t *testing.T) {
	onOurEngine(t, func(t *testing.T, u user) {
		u.must(t, "network", "create", "own")
		u.must(t, "run", "-d", "--name", "other", "-h", "famous", "--network", "own", "busybox", "sleep", "600")
		t.Cleanup(func() {
			u.must(t, "rm", "-f", "other")
			u.must(t, "network", "rm", "own")
		})
		t.Run("a link in one's own network is a name for this container alone", func(t *testing.T) {
			out := u.must(t, "run", "--rm", "--network", "own", "--link", "other:database", "busybox", "ping", "-c1", "-W5", "database")
			if !strings.Contains(out, "1 packets received") {
				t.Errorf("ping says %s", out)
			}
			fails(1, "bad address", "run", "--rm", "--label", "fails", "--network", "own", "busybox", "ping", "-c1", "database")(t, u)
		})
		t.Run("a link in the default network says what to do",
			func(t *testing.T) {
				fails(125, "join the containers to one network", runs(f("--link", "other:database"), "true")...)(t, u)
			})
		t.Run("who shares a network shares its host name", func(t *testing.T) {
			says("famous famous\n", "run", "--rm", "--network", "container:other", "busybox", "sh", "-c", "echo $(hostname) $HOSTNAME")(t, u)
		})
	})
}

func TestACopyIntoAVolumeBeforeTheStart(t *testing.T) {
	onOurEngine(t, func(t *testing.T, u user) {
		file := filepath.Join(rig.Dir(t), "config")
		if err := os.WriteFile(file, []byte("filled\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		u.must(t, "create", "--name", "filler", "-v", "vol:/new/place", "busybox")
		u.must(t, "cp", file, "filler:/new/place/")
		says("filled\n", "run", "--rm", "-v", "vol:/data", "busybox", "cat", "/data/config")(t, u)
		u.must(t, "rm", "filler")
		u.must(t, "volume", "rm", "vol")
	})
}

func TestSharedMemoryOfAnotherContainer(t *testing.T) {
	onOurEngine(t, func(t *testing.T, u user) {
		u.must(t, "run", "-d", "--name", "donor", "--ipc", "shareable", "busybox", "sh", "-c", "echo mine > /dev/shm/f; sleep 600")
		t.Cleanup(func() { u.must(t, "rm", "-f", "donor") })
		says("mine\n", "run", "--rm", "--ipc", "container:donor", "busybox", "sh", "-c", "until cat /dev/shm/f; do sleep .1; done 2>/dev/null; echo yours > /dev/shm/g")(t, u)
		says("yours\n", "exec", "donor", "cat", "/dev/shm/g")(t, u)
	})
}

func TestAttachEndsWithTheExitCode(t *testing.T) {
	onOurEngine(t, func(t *testing.T, u user) {
		for range 10 {
			u.must(t, "run", "-d", "--name", "ends", "busybox", "sh", "-c", "sleep .3; exit 3")
			if r := u.run(t, "attach", "ends"); r.Code != 3 {
				t.Errorf("code %d, stderr %q", r.Code, r.Stderr)
			}
			u.must(t, "rm", "ends")
		}
	})
}

// The words of kinds ("unavailable", "invalid argument") are for programs.
func TestAnErrorEndsWithItsReason(t *testing.T) {
	onOurEngine(t, func(t *testing.T, u user) {
		u.must(t, "network", "create", "--subnet", "10.9.0.0/16", "taken")
		defer u.must(t, "network", "rm", "taken")
		for _, c := range []struct {
			name   string
			args   []string
			code   int
			reason string
		}{
			{"a registry that is down", f("pull", "127.0.0.1:9/busybox"), 1, "connection refused"},
			{"a subnet that is taken", f("network", "create", "--subnet", "10.9.8.0/24", "more"), 1, "overlaps with another network's"},
			{"a port of nobody's address", runs(f("-p", "192.0.2.1:8080:80"), "true"), 125, "no interface of the host has that address"},
		} {
			t.Run(c.name, func(t *testing.T) {
				r := u.run(t, c.args...)
				// The hint at --help, where there is one, comes after an empty line.
				if line, _, _ := strings.Cut(strings.TrimSpace(r.Stderr), "\n\n"); r.Code != c.code || !strings.HasSuffix(line, c.reason) || strings.Contains(line, "\n") {
					t.Errorf("code %d, stderr %q", r.Code, r.Stderr)
				}
			})
		}
	})
}

// As in 'make demo': what a run that removes itself leaves to be done behind it is
// done before the daemon ends.
func TestADaemonThatEndsAfterARunLeavesNoShim(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host)
	rig.Must(t, g.Gantry(t, "load", "-q", "-i", archive(t, host)))
	for range 5 {
		rig.Must(t, g.Gantry(t, "run", "--rm", "busybox", "true"))
		g.Stop()
		rig.Eventually(t, func() error {
			out, _ := exec.Command("pgrep", "-af", "containerd-shim-gantry-v2.*"+g.State).Output()
			if len(out) > 0 {
				return fmt.Errorf("left: %s", out)
			}
			return nil
		})
		g.Start(t)
	}
}
