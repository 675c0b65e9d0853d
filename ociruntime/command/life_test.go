package command

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestRunGivesOutputAndExitCode(t *testing.T) {
	r := newTool(t)
	for _, c := range []struct {
		script, out, err string
		code             int
	}{
		{"echo out; echo err >&2", "out\n", "err\n", 0},
		{"exit 7", "", "", 7},
	} {
		res := r.run(t, "run", "-b", bundle(t, shell(c.script)), "x")
		if res.out != c.out || res.err != c.err || res.code != c.code {
			t.Errorf("%s: %+v", c.script, res)
		}
	}
}

func TestRunPassesStdin(t *testing.T) {
	r := newTool(t)
	cmd := r.command("run", "--bundle="+bundle(t, shell("cat; echo end")), "x")
	cmd.Stdin = strings.NewReader("one\ntwo\n")
	if res := run(t, cmd); res.out != "one\ntwo\nend\n" || res.code != 0 {
		t.Errorf("%+v", res)
	}
}

func TestRunForwardsSignals(t *testing.T) {
	r := newTool(t)
	cmd := r.command("run", "-b", bundle(t, shell("trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done")), "x")
	out := startWithOutput(t, cmd)
	out.await(t, "ready\n")
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if got := out.String(); got != "ready\ngot it\n" || cmd.ProcessState.ExitCode() != 5 {
		t.Errorf("%q, exit code %d", got, cmd.ProcessState.ExitCode())
	}
}

// The signals that have a number alone are passed on when the program has run for
// a moment, and so in the life of whatever waits for them.
func TestRunForwardsRealTimeSignals(t *testing.T) {
	r := newTool(t)
	dir := bundle(t, shell("trap 'echo got it; exit 3' 37; echo ready; while :; do sleep 0.01; done"))
	cmd := r.command("run", "--bundle", dir, "box")
	out := startWithOutput(t, cmd)
	out.await(t, "ready")
	time.Sleep(4 * beforeRealTime)
	if err := cmd.Process.Signal(syscall.Signal(37)); err != nil {
		t.Fatal(err)
	}
	out.await(t, "got it")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("%v, want exit code 3", err)
	}
}

func TestRunOfAKilledProgramIsItsSignal(t *testing.T) {
	r := newTool(t)
	cmd := r.command("run", "-b", bundle(t, shell("echo ready; sleep 1000")), "x")
	out := startWithOutput(t, cmd)
	out.await(t, "ready\n")
	r.must(t, "kill", "x", "KILL")
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+9 {
		t.Errorf("exit code %d", code)
	}
}

func TestRunKeepsTheContainerOnDemand(t *testing.T) {
	r := newTool(t)
	r.must(t, "run", "--keep", "-b", bundle(t, shell("true")), "x")
	if st := r.state(t, "x"); st.Status != "stopped" || st.Pid != 0 {
		t.Errorf("%+v", st)
	}
	if res := r.run(t, "kill", "x"); res.code != 1 || !strings.Contains(res.err, "container not running") {
		t.Errorf("kill: %+v", res)
	}
	if res := r.run(t, "exec", "x", "true"); res.code != 255 {
		t.Errorf("exec: %+v", res)
	}
	r.must(t, "delete", "x")
}

// jsonState is what callers read from `state`.
type jsonState struct {
	Version string `json:"ociVersion"`
	ID      string `json:"id"`
	Pid     int    `json:"pid"`
	Status  string `json:"status"`
	Bundle  string `json:"bundle"`
	Rootfs  string `json:"rootfs"`
	Created time.Time
	Owner   string `json:"owner"`
}

func (r tool) state(t *testing.T, id string) (s jsonState) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.must(t, "state", id)), &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// A life as containerd's shim leads it, one program for each verb.
func TestCreateStartPauseKillDelete(t *testing.T) {
	r := newTool(t)
	dir := bundle(t, shell("trap 'exit 3' TERM; echo >/dev/shm/trap; while :; do sleep 0.05; done"))
	pidFile := filepath.Join(t.TempDir(), "pid")
	r.must(t, "create", "--bundle", dir, "--pid-file", pidFile, "x")
	pid, err := strconv.Atoi(read(t, pidFile))
	if err != nil {
		t.Fatal(err)
	}
	st := r.state(t, "x")
	if st.Status != "created" || st.Pid != pid || st.ID != "x" || st.Bundle != dir || st.Rootfs != dir+"/rootfs" || st.Owner != "root" || time.Since(st.Created) > time.Minute {
		t.Errorf("%+v, pid %d", st, pid)
	}
	if res := r.run(t, "create", "--bundle", dir, "x"); res.code != 1 || !strings.Contains(res.err, "exist") {
		t.Errorf("a second of the same name: %+v", res)
	}
	if res := r.run(t, "exec", "--pid-file", "", "x", "true"); res.code != 0 {
		t.Errorf("exec in a created container: %+v", res)
	}

	r.must(t, "start", "x")
	if st := r.state(t, "x"); st.Status != "running" {
		t.Errorf("%+v", st)
	}
	if res := r.run(t, "start", "x"); res.code != 1 {
		t.Errorf("started twice: %+v", res)
	}
	if res := r.run(t, "delete", "x"); res.code != 1 || !strings.Contains(res.err, "not stopped") {
		t.Errorf("delete of a running container: %+v", res)
	}
	for i := 0; r.run(t, "exec", "x", "cat", "/dev/shm/trap").code != 0; i++ { // until then TERM is nothing to it
		if i == 1000 {
			t.Fatal("it sets no trap")
		}
		time.Sleep(10 * time.Millisecond)
	}

	r.must(t, "pause", "x")
	if st := r.state(t, "x"); st.Status != "paused" {
		t.Errorf("%+v", st)
	}
	if res := r.run(t, "exec", "x", "true"); res.code != 255 || !strings.Contains(res.err, "paused") {
		t.Errorf("exec in a paused container: %+v", res)
	}
	if res := r.run(t, "pause", "x"); res.code != 1 {
		t.Errorf("paused twice: %+v", res)
	}
	r.must(t, "resume", "x")

	r.must(t, "kill", "x", "TERM")
	if code := reapChild(t, pid); code != 3 {
		t.Errorf("exit code %d", code)
	}
	if st := r.state(t, "x"); st.Status != "stopped" || st.Pid != 0 {
		t.Errorf("%+v", st)
	}
	r.must(t, "delete", "x")
}

// reapChild waits for a process that became ours, as subreaper.
func reapChild(t *testing.T, pid int) int {
	t.Helper()
	for range 1000 {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(pid, &ws, syscall.WNOHANG, nil)
		if err != nil {
			t.Fatalf("wait for %d: %v", pid, err)
		}
		if got == pid {
			return exitCode(ws)
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%d does not end", pid)
	return 0
}

func (r tool) detached(t *testing.T, dir, id string) {
	t.Helper()
	r.must(t, "run", "-d", "-b", dir, id)
	pid := r.state(t, id).Pid
	t.Cleanup(func() {
		r.run(t, "delete", "--force", id)
		reapChild(t, pid)
	})
}

func sleeper(t *testing.T, change func(*specs.Spec)) string {
	return bundle(t, func(s *specs.Spec) {
		s.Process.Args = []string{"sleep", "1000"}
		if change != nil {
			change(s)
		}
	})
}

func TestExec(t *testing.T) {
	r := newTool(t)
	r.detached(t, sleeper(t, func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "OF=container") }), "x")
	for _, c := range []struct {
		args, out string
		code      int
	}{
		{"x echo hi", "hi\n", 0},
		{"x sh -c exit\u00a09", "", 9},
		{"--cwd /bin x pwd", "/bin\n", 0},
		{"-e A=1 --env=B=2 x sh -c echo\u00a0$A$B$OF", "12container\n", 0},
		{"--user 1000:1001 -g 7 x id", "uid=1000 gid=1001 groups=7\n", 0},
		{"-u 5 x id -u", "5\n", 0},
		{"x sh -c kill\u00a0-9\u00a0$$", "", 137},
		{"x /bin/cat --help-me-not", "", 1},
	} {
		args := strings.Fields(strings.ReplaceAll(c.args, "\u00a0", "\x01"))
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "\x01", " ")
		}
		res := r.run(t, append([]string{"exec"}, args...)...)
		if res.out != c.out || res.code != c.code {
			t.Errorf("%s: %+v", c.args, res)
		}
	}
	caps := func(flags ...string) string {
		return r.must(t, append(append([]string{"exec"}, flags...), "x", "sh", "-c", "grep CapEff /proc/self/status")...)
	}
	if a, b := caps(), caps("--cap", "CAP_SYS_ADMIN"); a == b {
		t.Errorf("--cap changes nothing: %s", a)
	}
	if res := r.run(t, "exec", "x", "nosuch"); res.code != 255 || !strings.Contains(res.err, "exec failed") || !strings.Contains(res.err, "executable file not found in $PATH") {
		t.Errorf("unknown command: %+v", res)
	}
	process := filepath.Join(t.TempDir(), "process.json")
	write(t, process, `{"args":["sh","-c","echo $X"],"cwd":"/","env":["X=y","PATH=/bin"],"user":{}}`, 0o600)
	if out := r.must(t, "exec", "--process", process, "x"); out != "y\n" {
		t.Errorf("--process: %q", out)
	}
}

func TestExecDetached(t *testing.T) {
	r := newTool(t)
	r.detached(t, sleeper(t, nil), "x")
	pidFile := filepath.Join(t.TempDir(), "pid")
	r.must(t, "exec", "--detach", "--pid-file", pidFile, "x", "sh", "-c", "exit 4")
	pid, err := strconv.Atoi(read(t, pidFile))
	if err != nil {
		t.Fatal(err)
	}
	if code := reapChild(t, pid); code != 4 {
		t.Errorf("exit code %d", code)
	}
}

func TestPsAndList(t *testing.T) {
	r := newTool(t)
	dir := sleeper(t, nil)
	r.detached(t, dir, "x")
	st := r.state(t, "x")
	var pids []int
	if err := json.Unmarshal([]byte(r.must(t, "ps", "--format", "json", "x")), &pids); err != nil || !slices.Equal(pids, []int{st.Pid}) {
		t.Errorf("pids %v (%v), want %d", pids, err, st.Pid)
	}
	table := strings.Split(strings.TrimSpace(r.must(t, "ps", "x")), "\n")
	if len(table) != 2 || !strings.Contains(table[0], "PID") || !strings.Contains(table[1], "sleep 1000") {
		t.Errorf("ps says %q", table)
	}
	if out := r.must(t, "ps", "x", "-o", "pid,comm"); !strings.Contains(out, "sleep") || strings.Count(out, "\n") != 2 {
		t.Errorf("ps -o says %q", out)
	}
	var list []jsonState
	if err := json.Unmarshal([]byte(r.must(t, "list", "-f", "json")), &list); err != nil || len(list) != 1 || list[0] != st {
		t.Errorf("list says %+v (%v), want %+v", list, err, st)
	}
	if out := r.must(t, "list", "-q"); out != "x\n" {
		t.Errorf("list -q says %q", out)
	}
	rows := strings.Split(r.must(t, "list"), "\n")
	if !slices.Equal(strings.Fields(rows[0]), []string{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}) ||
		!slices.Equal(strings.Fields(rows[1])[:4], []string{"x", strconv.Itoa(st.Pid), "running", dir}) {
		t.Errorf("list says %q", rows)
	}
}

// statsEvent has the fields by which containerd's go-runc reads the numbers.
type statsEvent struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data struct {
		CPU struct {
			Usage struct {
				Total uint64 `json:"total"`
			} `json:"usage"`
		} `json:"cpu"`
		Memory struct {
			Usage struct {
				Limit uint64 `json:"limit"`
				Usage uint64 `json:"usage"`
			} `json:"usage"`
			Raw map[string]uint64 `json:"raw"`
		} `json:"memory"`
		Pids struct {
			Current uint64 `json:"current"`
			Limit   uint64 `json:"limit"`
		} `json:"pids"`
	} `json:"data"`
}

func (r tool) stats(t *testing.T, id string) (e statsEvent) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.must(t, "events", "--stats", id)), &e); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestUpdateShowsInEvents(t *testing.T) {
	r := newTool(t)
	r.detached(t, sleeper(t, nil), "x")
	e := r.stats(t, "x")
	if e.Type != "stats" || e.ID != "x" || e.Data.Pids.Current != 1 || e.Data.CPU.Usage.Total == 0 || e.Data.Memory.Usage.Usage == 0 || len(e.Data.Memory.Raw) == 0 {
		t.Errorf("%+v", e)
	}
	r.must(t, "update", "--memory", "32M", "--pids-limit", "20", "--cpu-share", "100", "x")
	if e := r.stats(t, "x"); e.Data.Memory.Usage.Limit != 32<<20 || e.Data.Pids.Limit != 20 {
		t.Errorf("%+v", e)
	}
	// A number that is 0 stays as it is, and so does what is left out.
	cmd := r.command("update", "--resources", "-", "x")
	cmd.Stdin = strings.NewReader(`{"memory":{"limit":67108864,"swap":0},"pids":{"limit":0},"cpu":{"shares":0}}`)
	if res := run(t, cmd); res.code != 0 {
		t.Fatalf("%+v", res)
	}
	if e := r.stats(t, "x"); e.Data.Memory.Usage.Limit != 64<<20 || e.Data.Pids.Limit != 20 {
		t.Errorf("%+v", e)
	}
}

func TestEventsTellOfMemoryShortage(t *testing.T) {
	r := newTool(t)
	limit := int64(16 << 20)
	r.detached(t, sleeper(t, func(s *specs.Spec) { s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit} }), "x")
	cmd := r.command("events", "--interval", "1h", "x")
	out := startWithOutput(t, cmd)
	out.await(t, `"type":"stats"`)
	if res := r.run(t, "exec", "x", "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1"); res.code != 137 {
		t.Errorf("a program of 64 MB: %+v", res)
	}
	out.await(t, `{"type":"oom","id":"x"}`)
	r.must(t, "kill", "x", "KILL")
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("events ends with %d when the container does: %s", code, out)
	}
}

// A container whose program waits can be asked to end, too.
func TestSignalsEndACreatedContainer(t *testing.T) {
	r := newTool(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		r.must(t, "create", "-b", sleeper(t, nil), "x")
		pid := r.state(t, "x").Pid
		r.must(t, "kill", "x", strconv.Itoa(int(sig)))
		if code := reapChild(t, pid); code != 128+int(sig) {
			t.Errorf("%v: exit code %d", sig, code)
		}
		if st := r.state(t, "x"); st.Status != "stopped" {
			t.Errorf("%v: %+v", sig, st)
		}
		r.must(t, "delete", "x")
	}
}

func withoutPidNamespace(s *specs.Spec) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
}

// Where the first process takes no other with it, SIGKILL is for all, before and
// after its end.
func TestKillReachesWhatOutlivesTheFirstProcess(t *testing.T) {
	r := newTool(t)
	pidFile := filepath.Join(t.TempDir(), "pid")
	for _, c := range []struct {
		id   string
		gone bool
	}{{"lives", false}, {"gone", true}} {
		r.must(t, "run", "-d", "-b", sleeper(t, withoutPidNamespace), c.id)
		r.must(t, "exec", "-d", "--pid-file", pidFile, c.id, "sleep", "1000")
		other, err := strconv.Atoi(read(t, pidFile))
		if err != nil {
			t.Fatal(err)
		}
		first := r.state(t, c.id).Pid
		if c.gone {
			if err := unix.Kill(first, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			reapChild(t, first)
		}
		r.must(t, "kill", c.id, "KILL")
		if code := reapChild(t, other); code != 137 {
			t.Errorf("%s: the other process ended with %d", c.id, code)
		}
		if !c.gone {
			reapChild(t, first)
		}
		if res := r.run(t, "kill", c.id, "KILL"); res.code != 1 || !strings.Contains(res.err, "container not running") {
			t.Errorf("nobody is left: %+v", res)
		}
		r.must(t, "delete", c.id)
	}
}

func TestKillAllReachesEveryProcess(t *testing.T) {
	r := newTool(t)
	// Without a pid namespace of its own nothing else takes the others along.
	dir := bundle(t, func(s *specs.Spec) {
		shell("sleep 1000 & sleep 1000 & wait")(s)
		withoutPidNamespace(s)
	})
	r.must(t, "run", "-d", "-b", dir, "x")
	var pids []int
	for range 100 {
		if err := json.Unmarshal([]byte(r.must(t, "ps", "-f", "json", "x")), &pids); err != nil {
			t.Fatal(err)
		}
		if len(pids) == 3 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if len(pids) != 3 {
		t.Fatalf("pids %v", pids)
	}
	r.must(t, "kill", "--all", "x", "KILL")
	for _, pid := range pids {
		if code := reapChild(t, pid); code != 137 {
			t.Errorf("%d ended with %d", pid, code)
		}
	}
	r.must(t, "delete", "x")
}

func TestConsoleSocketTakesTheTerminal(t *testing.T) {
	r := newTool(t)
	dir := bundle(t, func(s *specs.Spec) {
		shell("tty; stty size; read line; echo got $line")(s)
		s.Process.Terminal = true
		s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 101}
	})
	if res := r.run(t, "create", "-b", dir, "x"); res.code != 1 || !strings.Contains(res.err, "--console-socket") {
		t.Errorf("nobody takes the terminal: %+v", res)
	}
	socket := filepath.Join(t.TempDir(), "s")
	master := listenForFile(t, socket)
	r.must(t, "create", "-b", dir, "--console-socket", socket, "x")
	pid := r.state(t, "x").Pid
	m := <-master
	defer m.Close()
	r.must(t, "start", "x")
	m.WriteString("word\n")
	var out bytes.Buffer
	out.ReadFrom(m) // ends with EIO
	if s := out.String(); !strings.Contains(s, "/dev/pts/0") && !strings.Contains(s, "/dev/console") || !strings.Contains(s, "33 101") || !strings.Contains(s, "got word") {
		t.Errorf("terminal says %q", s)
	}
	reapChild(t, pid)
	r.must(t, "delete", "x")

	plain := bundle(t, shell("true"))
	if res := r.run(t, "create", "-b", plain, "--console-socket", socket, "x"); res.code != 1 || !strings.Contains(res.err, "process.terminal") {
		t.Errorf("a console socket without a terminal: %+v", res)
	}
}

// listenForFile receives one descriptor as callers of a runtime do.
func listenForFile(t *testing.T, socket string) <-chan *os.File {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	got := make(chan *os.File, 1)
	go func() {
		defer close(got)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		name, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
		n, oobn, _, _, err := c.(*net.UnixConn).ReadMsgUnix(name, oob)
		if err != nil {
			return
		}
		if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) == 1 {
			if fds, err := unix.ParseUnixRights(&msgs[0]); err == nil {
				got <- os.NewFile(uintptr(fds[0]), string(name[:n]))
			}
		}
	}()
	return got
}

func TestRunDrivesTheTerminalItself(t *testing.T) {
	r := newTool(t)
	dir := bundle(t, func(s *specs.Spec) {
		shell("stty size; trap 'stty size; exit 6' WINCH; echo ready; read x; while :; do sleep 0.05; done")(s)
		s.Process.Terminal = true
	})
	cmd := r.command("run", "-b", dir, "x")
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 20, Cols: 70})
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	out := &output{}
	go out.from(master)
	out.await(t, "20 70\r\nready\r\n")
	master.WriteString("line\n") // the container's terminal echoes it: ours is raw
	out.await(t, "ready\r\nline\r\n")
	pty.Setsize(master, &pty.Winsize{Rows: 21, Cols: 71})
	out.await(t, "21 71\r\n")
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 6 {
		t.Errorf("exit code %d", code)
	}
}

// Where our output is no terminal, its lines end as the program ends them.
func TestOutputOfATerminalIsPlain(t *testing.T) {
	r := newTool(t)
	dir := bundle(t, func(s *specs.Spec) {
		shell("echo one; echo two")(s)
		s.Process.Terminal = true
	})
	if res := r.run(t, "run", "-b", dir, "x"); res.out != "one\ntwo\n" {
		t.Errorf("run: %+v", res)
	}
	r.detached(t, sleeper(t, nil), "x")
	if res := r.run(t, "exec", "--tty", "x", "sh", "-c", "echo one; echo two"); res.out != "one\ntwo\n" {
		t.Errorf("exec: %+v", res)
	}
}

func TestExecInATerminal(t *testing.T) {
	r := newTool(t)
	r.detached(t, sleeper(t, nil), "x")
	cmd := r.command("exec", "--tty", "x", "sh", "-c", "tty; stty size; sleep 100")
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 20, Cols: 70})
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	out := &output{}
	go out.from(master)
	out.await(t, "/dev/pts/0\r\n20 70\r\n")
	master.WriteString("\x03") // control-C is the container's to take
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 {
		t.Errorf("exit code %d", code)
	}
}

func TestPreservedDescriptors(t *testing.T) {
	r := newTool(t)
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	cmd := r.command("run", "--preserve-fds", "1", "-b", bundle(t, shell("echo through >&3; echo hidden >&4")), "x")
	cmd.ExtraFiles = []*os.File{pw, pw}
	res := run(t, cmd)
	pw.Close()
	var got bytes.Buffer
	got.ReadFrom(pr)
	if got.String() != "through\n" || res.code == 0 {
		t.Errorf("3 gave %q; %+v", got.String(), res)
	}
}

func TestListenFDsOfSocketActivation(t *testing.T) {
	r := newTool(t)
	// The shell's pid is the program's, as with sd_listen_fds(3).
	cmd := r.command()
	args := append([]string{"-c", `export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"`, "sh"}, cmd.Path)
	args = append(args, "--root", r.root, "run", "-b", bundle(t, shell("echo $LISTEN_FDS $LISTEN_PID >&3")), "x")
	sh := exec.Command("/bin/sh", args...)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	sh.Args[4], sh.Env = self, cmd.Env
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pr.Close()
	sh.ExtraFiles = []*os.File{pw}
	res := run(t, sh)
	pw.Close()
	var got bytes.Buffer
	got.ReadFrom(pr)
	if got.String() != "1 1\n" {
		t.Errorf("%q; %+v", got.String(), res)
	}
}

func TestWhatIsAskedForAfterCreateFailsWhole(t *testing.T) {
	r := newTool(t)
	res := r.run(t, "create", "-b", sleeper(t, nil), "--pid-file", "/no/such/dir/pid", "x")
	if res.code != 1 || !strings.Contains(res.err, "/no/such/dir") {
		t.Errorf("%+v", res)
	}
}

func TestPlanTouchesNothing(t *testing.T) {
	r := newTool(t)
	named := func(hostname string) string {
		return bundle(t, func(s *specs.Spec) { s.Hostname, s.Linux.CgroupsPath = hostname, cgroupParent+"/plan" })
	}
	a, b := named(program), named("other")
	out := r.must(t, "plan", a)
	for _, words := range []string{"# and clones: ", `sethostname("gantry-runtime", 14)`, "execve("} {
		if !strings.Contains(out, words) {
			t.Errorf("the plan does not say %q", words)
		}
	}
	var plan struct {
		Clone []string
		Files []struct{ Name string }
		Steps []struct{ Name, Call string }
	}
	if err := json.Unmarshal([]byte(r.must(t, "plan", "--json", a)), &plan); err != nil || len(plan.Steps) == 0 || len(plan.Files) == 0 || !slices.Contains(plan.Clone, "NEWPID") {
		t.Errorf("%+v (%v)", plan, err)
	}
	res := r.run(t, "plan", "--diff", a, b)
	if want := "--- " + a + "\n+++ " + b + "\n# set hostname gantry-runtime\n- sethostname(\"gantry-runtime\", 14)\n# set hostname other\n+ sethostname(\"other\", 5)\n"; res.out != want || res.code != 1 {
		t.Errorf("diff says %q, want %q", res.out, want)
	}
	if res := r.run(t, "plan", "--diff", a, a); res.out != "" || res.code != 0 {
		t.Errorf("no difference: %+v", res)
	}
	if _, err := os.Stat(r.root); err == nil {
		t.Error("plan made the state directory")
	}
}
