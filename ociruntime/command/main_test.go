package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The tests run the command line as a program: this binary again.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_RUNTIME_TEST") == "program" {
		os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	// What a failed run leaves becomes our child, and is found.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// cgroupParent is where the containers of this test binary have their groups.
var cgroupParent = fmt.Sprintf("/gantry-runtime-test-%d", os.Getpid())

// tool is the program with a state directory of the test's own.
type tool struct {
	root string
	left func() []string
}

// newTool fails the test when it leaves containers, mounts, cgroups or
// processes behind.
func newTool(t *testing.T) tool {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("containers need root")
	}
	dir, err := os.MkdirTemp("/tmp", "gr")
	if err != nil {
		t.Fatal(err)
	}
	r := tool{root: filepath.Join(dir, "state")}
	before := machineState(t, dir)
	r.left = func() []string {
		var left []string
		for thing := range machineState(t, dir) {
			if !before[thing] {
				left = append(left, thing)
			}
		}
		return left
	}
	t.Cleanup(func() {
		if left := r.left(); len(left) > 0 {
			t.Errorf("left behind:\n\t%s", strings.Join(left, "\n\t"))
			return // do not remove through a mount
		}
		os.RemoveAll(dir)
		groups, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent)
		for _, g := range append(groups, "/sys/fs/cgroup"+cgroupParent) {
			os.Remove(g) // where it is there, and empty
		}
	})
	return r
}

// machineState is what may be left behind: state directories, mounts below dir,
// cgroups of the tests, children.
func machineState(t *testing.T, dir string) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	states, _ := filepath.Glob(filepath.Join(dir, "state", "*"))
	groups, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroupParent + "/*")
	unified, _ := filepath.Glob("/sys/fs/cgroup" + cgroupParent + "/*")
	for _, name := range append(append(states, groups...), unified...) {
		if fi, err := os.Stat(name); err == nil && fi.IsDir() {
			found[name] = true
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], dir) {
			found["mount "+f[4]] = true
		}
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range strings.Fields(string(children)) {
		cmdline, _ := os.ReadFile("/proc/" + pid + "/cmdline")
		found["process "+pid+" "+strings.ReplaceAll(string(cmdline), "\x00", " ")] = true
	}
	return found
}

// command runs the program with its --root.
func (r tool) command(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"--root", r.root}, args...)...)
	cmd.Env = append(os.Environ(), "GANTRY_RUNTIME_TEST=program")
	return cmd
}

type result struct {
	out, err string
	code     int
}

// run runs cmd to its end. Its output goes to files, for a container that it
// leaves running keeps them open.
func run(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	dir := t.TempDir()
	var files [2]*os.File
	for i := range files {
		var err error
		if files[i], err = os.Create(filepath.Join(dir, strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
		defer files[i].Close()
	}
	cmd.Stdout, cmd.Stderr = files[0], files[1]
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{read(t, files[0].Name()), read(t, files[1].Name()), cmd.ProcessState.ExitCode()}
}

func (r tool) run(t *testing.T, args ...string) result {
	t.Helper()
	return run(t, r.command(args...))
}

func (r tool) must(t *testing.T, args ...string) string {
	t.Helper()
	res := r.run(t, args...)
	if res.code != 0 {
		t.Fatalf("%v: exit code %d\n%s%s", args, res.code, res.out, res.err)
	}
	return res.out
}

// bundle makes a bundle around a static busybox.
func bundle(t *testing.T, change func(*specs.Spec)) string {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "rootfs/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Fatalf("busybox-static is needed ('make deps'): %v", err)
	}
	if err := os.WriteFile(filepath.Join(bin, "busybox"), busybox, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, applet := range []string{"sh", "true", "cat", "sleep", "echo", "env", "id", "stty", "tty", "kill", "ps", "dd", "pwd"} {
		if err := os.Link(filepath.Join(bin, "busybox"), filepath.Join(bin, applet)); err != nil {
			t.Fatal(err)
		}
	}
	spec := exampleSpec()
	spec.Process.Terminal = false
	spec.Linux.CgroupsPath = cgroupParent + "/" + filepath.Base(filepath.Dir(dir)) + filepath.Base(dir)
	if change != nil {
		change(spec)
	}
	writeConfig(t, dir, spec)
	return dir
}

func writeConfig(t *testing.T, dir string, spec *specs.Spec) {
	t.Helper()
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func shell(script string) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Process.Args = []string{"sh", "-c", script} }
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// output is what a program printed so far.
type output struct {
	mu   sync.Mutex // guards text
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) from(r io.Reader) { io.Copy(o, r) }

// await waits until the output has text.
func (o *output) await(t *testing.T, text string) {
	t.Helper()
	for range 1000 {
		if strings.Contains(o.String(), text) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it says %q, and %q does not come", o, text)
}

func startWithOutput(t *testing.T, cmd *exec.Cmd) *output {
	t.Helper()
	out := &output{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
	return out
}
