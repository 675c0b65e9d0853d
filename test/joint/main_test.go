package joint

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

func TestMain(m *testing.M) { rig.Main(m) }

// user is somebody with a docker-compatible command line and a daemon that has
// busybox:latest.
type user struct {
	host *rig.Host
	cmd  func(t testing.TB, args ...string) *exec.Cmd
}

func (u user) run(t testing.TB, args ...string) rig.Result {
	t.Helper()
	return rig.Run(t, u.cmd(t, args...))
}

func (u user) must(t testing.TB, args ...string) string {
	t.Helper()
	return rig.Must(t, u.cmd(t, args...))
}

// archive is the busybox image in the form of 'docker save'.
func archive(t testing.TB, host *rig.Host) string {
	t.Helper()
	file := filepath.Join(rig.Dir(t), "busybox.tar")
	rig.Must(t, host.Command("skopeo", "copy", "-q", "--insecure-policy", "oci:"+rig.Busybox(t), "docker-archive:"+file+":busybox:latest"))
	return file
}

func TestStockDockerOnOurEngine(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host)
	u := user{host, g.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, everything)
}

func TestOurCommandLineOnOurEngine(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host)
	u := user{host, g.Gantry}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, everything)
}

func TestOurCommandLineOnStockDockerd(t *testing.T) {
	host := rig.NewHost(t)
	d := rig.StartDockerd(t, host)
	u := user{host, d.Gantry}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, everything&^oursOnly)
}

func TestOurEngineOnStockContainerdWithItsShimAndRunc(t *testing.T) {
	host := rig.NewHost(t)
	c := rig.StartContainerd(t, host)
	g := rig.StartGantryd(t, host, "--roles", "engine", "--containerd-address", c.Address, "--default-runtime", "io.containerd.runc.v2")
	u := user{host, g.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, everything&^oursOnly)
}

func TestOurEngineOnStockContainerdWithOurShim(t *testing.T) {
	host := rig.NewHost(t)
	c := rig.StartContainerd(t, host)
	g := rig.StartGantryd(t, host, "--roles", "engine", "--containerd-address", c.Address)
	u := user{host, g.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, basics)
}

func TestOurEngineAndLifecycleWithStockShimAndRunc(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host, "--default-runtime", "io.containerd.runc.v2")
	u := user{host, g.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, basics)
}

func TestStockDockerdOnOurLifecycle(t *testing.T) {
	host := rig.NewHost(t)
	g := rig.StartGantryd(t, host, "--roles", "lifecycle")
	d := rig.StartDockerd(t, host, "--containerd", g.ContainerdAddress)
	u := user{host, d.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, basics)
}

func TestStockDockerdWithOurRuntime(t *testing.T) {
	host := rig.NewHost(t)
	d := rig.StartDockerd(t, host, "--add-runtime", "gantry="+rig.Program(t, "gantry-runtime"), "--default-runtime", "gantry")
	u := user{host, d.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, everything&^oursOnly)
}
