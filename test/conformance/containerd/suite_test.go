package containerd

import (
	"bufio"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

var (
	all  = flag.Bool("all", false, "also run the suite with the stock shim, and against containerd, the control")
	only = flag.String("only", "", "run only the tests of the suite that match this `pattern`, and compare nothing")
)

func TestMain(m *testing.M) { rig.Main(m) }

// skipped is what cannot run here, with containerd neither.
var skipped = map[string]string{
	"TestBindLowPortNonOpt": "Debian's nc, the container's first process, has no handler for SIGTERM: the test waits for ever",
}

// pairs are the daemon and the shim that the suite meets.
var pairs = []struct {
	name    string
	daemon  string // containerd, or ours
	runtime string // TEST_RUNTIME
	runc    string // what stands in PATH as runc
	// fails has what does not pass, and why.
	fails map[string]string
}{
	{"containerd, the control", "containerd", "io.containerd.runc.v2", "runc", nil},
	{"lifecycle with the stock shim", "gantryd", "io.containerd.runc.v2", "runc", configuration},
	{"lifecycle with our shim", "gantryd", "io.containerd.gantry.v2", "gantry-runtime", configuration},
}

// configuration is containerd's own configuration file (docs/decision/0009).
var configuration = map[string]string{
	"TestDaemonCustomCgroup": "sets the daemon's cgroup by containerd's configuration file",
	"TestMigration":          "migrates containerd's configuration file",
}

func TestContainerdsOwnSuite(t *testing.T) {
	want := names(t)
	img := newImages(t)
	suite := filepath.Join(rig.Dir(t), "client.test")
	goCommand(t, "test", "-c", "-o", suite, "github.com/containerd/containerd/v2/integration/client")
	img.digest(t, suite)
	for _, p := range pairs {
		if !*all && p.runtime != "io.containerd.gantry.v2" {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			bin := programs(t, p.daemon, p.runc)
			results := run(t, img, suite, bin, p.runtime, *only)
			if *only != "" {
				t.Log(results)
				return
			}
			// Tests of the suite run side by side, and read the kernel's list of mounts while
			// others change it: what fails then may try again alone.
			if failed := unexpected(results, p.fails); len(failed) > 0 {
				t.Logf("run again alone: %v", failed)
				maps.Copy(results, run(t, img, suite, bin, p.runtime, "^("+strings.Join(failed, "|")+")$"))
			}
			compare(t, want, results, p.fails)
		})
	}
}

// names are the tests of the suite, subtests with them.
func names(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/suite.txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(data))
}

// programs is a directory of what the suite and its daemon find in PATH.
func programs(t *testing.T, daemon, runc string) string {
	t.Helper()
	bin := rig.Dir(t)
	link := func(from, name string) {
		if err := os.Symlink(from, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"gantryd", "containerd-shim-gantry-v2", "gantry-runtime"} {
		link(rig.Program(t, name), name)
	}
	if runc == "gantry-runtime" {
		link(rig.Program(t, runc), "runc")
	} else {
		link(rig.Peer(t, runc), "runc")
	}
	const module = "github.com/containerd/containerd/v2/"
	goCommand(t, "build", "-o", bin+"/", module+"cmd/containerd-shim-runc-v2", module+"integration/failpoint/cmd/runc-fp")
	goCommand(t, "build", "-o", filepath.Join(bin, "containerd-stock"), module+"cmd/containerd")
	script, err := filepath.Abs("testdata/containerd.sh")
	if err != nil {
		t.Fatal(err)
	}
	if daemon == "containerd" {
		script = "containerd-stock"
	}
	link(script, "containerd")
	return bin
}

// goCommand runs a go command in the module that pins strangers.
func goCommand(t testing.TB, args ...string) (printed string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir = "../../peers"
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	return rig.Must(t, cmd)
}

// run runs the suite and gives what became of each test, PASS, FAIL or SKIP.
func run(t *testing.T, img images, suite, bin, runtime, pattern string) map[string]string {
	t.Helper()
	host := rig.NewHost(t)
	reg := startRegistries(t, host, img)
	work := rig.Dir(t)
	alone, err := filepath.Abs("testdata/alone.sh")
	if err != nil {
		t.Fatal(err)
	}
	skip := make([]string, 0, len(skipped))
	for name := range skipped {
		skip = append(skip, "^"+name+"$")
	}
	cmd := host.Command("unshare", "-m", "-p", "-f", "--kill-child", "--mount-proc", alone, reg.hosts, work, suite, "-test.v", "-test.timeout", "15m",
		"-test.skip", strings.Join(skip, "|"), "-test.run", pattern, "-test.root", "-no-criu")
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "SSL_CERT_FILE="+reg.ca, "TEST_RUNTIME="+runtime)
	log, err := os.Create(filepath.Join(work, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	// The exit status is no news: it is 1 where one test failed.
	_ = cmd.Run()
	t.Cleanup(func() {
		// What the suite and containerd leave behind. A cgroup of the suite's may have had
		// a shim in it when its test, which does not wait for that, was done.
		for _, dir := range []string{"/tmp/runc-test", "/run/containerd-test", "/run/nri", "/run/containerd"} {
			os.RemoveAll(dir)
		}
		removeGroups("/sys/fs/cgroup/*/containerd/*shim", "/sys/fs/cgroup/*/containerd", "/sys/fs/cgroup/*/testing")
		if t.Failed() || *only != "" {
			keep(t, log.Name())
		}
	})
	all := results(t, log.Name())
	if len(all) == 0 {
		t.Error("the suite ran no test")
	}
	return all
}

var verdict = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+)`)

func results(t *testing.T, log string) map[string]string {
	t.Helper()
	f, err := os.Open(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m := verdict.FindStringSubmatch(lines.Text()); m != nil {
			all[m[2]] = m[1]
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// keep shows where the suite's output is.
func keep(t *testing.T, log string) {
	to := filepath.Join(os.TempDir(), "gantry-containerd-suite.log")
	data, err := os.ReadFile(log)
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	t.Logf("the suite's output: %s (%v)", to, err)
}

// unexpected are the tests that fail and are not known to.
func unexpected(results, fails map[string]string) (names []string) {
	for name, result := range results {
		if result == "FAIL" && !strings.Contains(name, "/") && fails[name] == "" {
			names = append(names, name)
			removeGroups("/sys/fs/cgroup/*/testing/" + name) // its container may have been left
		}
	}
	slices.Sort(names)
	return names
}

func removeGroups(patterns ...string) {
	for _, p := range patterns {
		groups, _ := filepath.Glob(p)
		for _, g := range groups {
			os.Remove(g)
		}
	}
}

// compare fails unless all pass but those that are known to fail.
func compare(t *testing.T, want []string, got, fails map[string]string) {
	t.Helper()
	passed := 0
	for _, name := range want {
		top, _, _ := strings.Cut(name, "/")
		why, known := fails[top]
		switch {
		case got[name] == "PASS" && known && name == top:
			t.Errorf("%s passes; it was thought not to, since it %s", name, why)
		case got[name] == "PASS":
			passed++
		case !known:
			t.Errorf("%s: %s", name, orMissing(got[name]))
		}
	}
	for name, result := range got {
		if !slices.Contains(want, name) && result != "SKIP" {
			t.Errorf("%s: %s, and is not in testdata/suite.txt", name, result)
		}
	}
	t.Logf("%d of %d pass", passed, len(want))
}

func orMissing(result string) string {
	if result == "" {
		return "did not run"
	}
	return result
}
