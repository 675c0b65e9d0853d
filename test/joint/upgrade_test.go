package joint

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// Whoever stands above our shim, a container's shim takes up a new program while the
// container runs, and neither its client nor the daemon, which waits for it, notices.
func TestShimsAreUpgradedUnderTheirContainers(t *testing.T) {
	const echo = "while read a; do echo $a; done; exit 7"
	for _, above := range []struct {
		name  string
		start func(t *testing.T) (address string, run func(args ...string) *exec.Cmd)
	}{
		{"stock containerd", func(t *testing.T) (string, func(...string) *exec.Cmd) {
			host := rig.NewHost(t)
			c := rig.StartContainerd(t, host)
			return c.Address, ctrRuns(t, ctrUser{host: host, address: c.Address, run: f("--runtime", "io.containerd.gantry.v2")})
		}},
		{"current containerd", func(t *testing.T) (string, func(...string) *exec.Cmd) {
			bin := current(t, "ctr", "containerd")
			host := rig.NewHost(t)
			c := rig.StartContainerd(t, host)
			c.Stop() // only its configuration is wanted
			u := ctrUser{host: host, address: c.Address, ctr: filepath.Join(bin, "ctr"), run: f("--runtime", "io.containerd.gantry.v2")}
			rig.Start(t, filepath.Join(rig.Dir(t), "log"), host.Command(filepath.Join(bin, "containerd"), "-c", filepath.Join(c.Dir, "config.toml")))
			rig.Eventually(t, func() error {
				if r := rig.Run(t, u.cmd(t, "version")); r.Code != 0 {
					return fmt.Errorf("ctr version: %s", r.Stderr)
				}
				return nil
			})
			return c.Address, ctrRuns(t, u)
		}},
		{"our lifecycle", func(t *testing.T) (string, func(...string) *exec.Cmd) {
			host := rig.NewHost(t)
			g := rig.StartGantryd(t, host, "--roles", "lifecycle")
			return g.ContainerdAddress, ctrRuns(t, ctrUser{host: host, address: g.ContainerdAddress, run: f("--runtime", "io.containerd.gantry.v2")})
		}},
		{"our engine", func(t *testing.T) (string, func(...string) *exec.Cmd) {
			host := rig.NewHost(t)
			g := rig.StartGantryd(t, host)
			rig.Must(t, g.Docker(t, "load", "-q", "-i", archive(t, host)))
			return g.ContainerdAddress, func(args ...string) *exec.Cmd {
				return g.Docker(t, append(f("run", "-i", "--rm", "busybox"), args...)...)
			}
		}},
	} {
		t.Run(above.name, func(t *testing.T) {
			address, run := above.start(t)
			cmd := run("sh", "-c", echo)
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(stdout)
			for i := range 5 {
				want := fmt.Sprintf("line %d\n", i)
				fmt.Fprint(stdin, want)
				if got, err := lines.ReadString('\n'); got != want {
					t.Fatalf("the container says %q (%v), want %q", got, err, want)
				}
				said := rig.Must(t, exec.Command(rig.Program(t, "containerd-shim-gantry-v2"), "-address", address, "upgrade"))
				if strings.Count(said, "\n") != 1 {
					t.Errorf("upgrade says %q, want a line for the shim", said)
				}
			}
			stdin.Close()
			cmd.Wait()
			if got := cmd.ProcessState.ExitCode(); got != 7 {
				t.Errorf("exit code is %d, want 7", got)
			}
		})
	}
}

// ctrRuns runs a container in the foreground.
func ctrRuns(t *testing.T, u ctrUser) func(args ...string) *exec.Cmd {
	u.must(t, "images", "import", archive(t, u.host))
	return func(args ...string) *exec.Cmd {
		return u.cmd(t, append(f("run", "--rm", ctrImage, "one"), args...)...)
	}
}
