package joint

import (
	"crypto/md5"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/gantryd/gantry/test/rig"
)

// which behaviours a pair is held to.
type which int

const (
	basics   which = 1 << iota // what any pair must do
	details                    // what a daemon and command line must do together
	oursOnly                   // where we do more, or better, than the stock tool

	everything = basics | details | oursOnly
)

// behaviour is one thing that a user expects.
type behaviour struct {
	name  string
	which which
	check func(t *testing.T, u user)
}

func suite(t *testing.T, u user, w which) {
	t.Helper()
	for _, b := range behaviours {
		if b.which&w != 0 {
			t.Run(b.name, func(t *testing.T) { b.check(t, u) })
		}
	}
}

// says is a behaviour of a command that prints exactly this and succeeds.
func says(want string, args ...string) func(*testing.T, user) {
	return func(t *testing.T, u user) {
		t.Helper()
		if got := strings.ReplaceAll(u.must(t, args...), "\r\n", "\n"); got != want {
			t.Errorf("%v says %q, want %q", args, got, want)
		}
	}
}

// fails is a behaviour of a command that ends with a code and an error that
// contains all of the words.
func fails(code int, words string, args ...string) func(*testing.T, user) {
	return func(t *testing.T, u user) {
		t.Helper()
		r := u.run(t, args...)
		if r.Code != code {
			t.Errorf("%v: exit code %d, want %d\n%s%s", args, r.Code, code, r.Stdout, r.Stderr)
		}
		for word := range strings.SplitSeq(words, "|") {
			if !strings.Contains(r.Stderr, word) {
				t.Errorf("%v: %q does not say %q", args, r.Stderr, word)
			}
		}
		left := u.must(t, "ps", "-aq", "--filter", "label=fails")
		if left != "" {
			t.Errorf("%v left containers: %s", args, left)
		}
	}
}

// runs shortens 'run --rm busybox'.
func runs(flags []string, command ...string) []string {
	return append(append([]string{"run", "--rm", "--label", "fails"}, append(flags, "busybox")...), command...)
}

func f(flags ...string) []string { return flags }

var behaviours = []behaviour{
	{"run prints what the container prints", basics, says("hello\n", runs(nil, "echo", "hello")...)},
	{"run passes the exit code", basics, fails(7, "", runs(nil, "sh", "-c", "exit 7")...)},
	{"run keeps stdout and stderr apart", basics, func(t *testing.T, u user) {
		r := u.run(t, runs(nil, "sh", "-c", "echo out; echo err >&2")...)
		if r.Stdout != "out\n" || r.Stderr != "err\n" {
			t.Errorf("stdout %q, stderr %q", r.Stdout, r.Stderr)
		}
	}},
	{"run -i passes stdin and its end", basics, func(t *testing.T, u user) {
		cmd := u.cmd(t, runs(f("-i"), "sh", "-c", "cat; echo end")...)
		cmd.Stdin = strings.NewReader("one\ntwo\n")
		if out := rig.Must(t, cmd); out != "one\ntwo\nend\n" {
			t.Errorf("cat says %q", out)
		}
	}},
	{"run -i passes a megabyte through unharmed", details, func(t *testing.T, u user) {
		cmd := u.cmd(t, runs(f("-i"), "md5sum")...)
		cmd.Stdin = strings.NewReader(strings.Repeat("0123456789abcdef", 1<<16))
		want := fmt.Sprintf("%x  -\n", md5.Sum([]byte(strings.Repeat("0123456789abcdef", 1<<16))))
		if out := rig.Must(t, cmd); out != want {
			t.Errorf("md5sum says %q, want %q", out, want)
		}
	}},
	{"run -it gives a terminal of the right size", details, func(t *testing.T, u user) {
		out := terminal(t, u, runs(f("-it"), "sh", "-c", "tty; until stty size | grep '33 101'; do sleep .1; done"), nil)
		if !strings.Contains(out, "/dev/pts/0") || !strings.Contains(out, "33 101") {
			t.Errorf("terminal says %q", out)
		}
	}},
	{"detach keys leave the container running", details, func(t *testing.T, u user) {
		name := "detached"
		t.Cleanup(func() { u.run(t, "rm", "-f", name) })
		terminal(t, u, []string{"run", "-it", "--name", name, "busybox", "sh"}, []byte{16, 17}) // ctrl-p ctrl-q
		if got := u.must(t, "inspect", "-f", "{{.State.Running}}", name); got != "true\n" {
			t.Errorf("running: %s", got)
		}
	}},
	{"an unknown command is 127 and says so", basics, fails(127, "nosuchcommand", runs(nil, "nosuchcommand")...)},
	{"a file that cannot be executed is 126", basics, fails(126, "ermission denied", runs(nil, "/etc/passwd")...)},
	{"a missing interpreter is named", oursOnly, func(t *testing.T, u user) {
		dir := rig.Dir(t)
		script := filepath.Join(dir, "script")
		if err := os.WriteFile(script, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		fails(127, "/no/such/interpreter", runs(f("-v", script+":/script"), "/script")...)(t, u)
	}},
	{"an unknown flag is 125", details, fails(125, "unknown flag: --nosuchflag", "run", "--nosuchflag", "busybox")},
	{"a bad flag value is 125 and named", details, fails(125, "12q", "run", "--rm", "-m", "12q", "busybox", "true")},
	{"an unknown image is 125 and named", basics, fails(125, "nosuch", "run", "--rm", "--pull", "never", "127.0.0.1:5999/nosuch", "true")},
	{"a name in use is refused", basics, func(t *testing.T, u user) {
		u.must(t, "create", "--name", "taken", "busybox", "true")
		defer u.must(t, "rm", "taken")
		fails(125, "taken|is already in use", "run", "--name", "taken", "--label", "fails", "busybox", "true")(t, u)
	}},
	{"a bad name is refused", details, fails(125, "Invalid container name", "run", "--rm", "--name", "a b", "busybox", "true")},
	{"entrypoint and arguments combine", details, says("a b\n", runs(f("--entrypoint", "echo"), "a", "b")...)},
	{"environment reaches the program", details, says("1 2\n", runs(f("-e", "A=1", "-e", "B=2"), "sh", "-c", "echo $A $B")...)},
	{"environment from a file, and from our own", details, func(t *testing.T, u user) {
		file := filepath.Join(rig.Dir(t), "env")
		if err := os.WriteFile(file, []byte("# comment\nA=from file\nFROM_OUTSIDE\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Setenv("FROM_OUTSIDE", "yes")
		says("from file yes over\n", runs(f("--env-file", file, "-e", "B=over"), "sh", "-c", "echo $A $FROM_OUTSIDE $B")...)(t, u)
		fails(125, "/no/such/file", runs(f("--env-file", "/no/such/file"), "true")...)(t, u)
	}},
	{"working directory is made and entered", details, says("/x/y\n", runs(f("-w", "/x/y"), "pwd")...)},
	{"user by number", details, says("1000 1000\n", runs(f("-u", "1000:1000"), "sh", "-c", "echo $(id -u) $(id -g)")...)},
	{"user by name", details, says("1 1\n", runs(f("-u", "daemon"), "sh", "-c", "echo $(id -u) $(id -g)")...)},
	{"an unknown user is refused", details, fails(125, "nosuchuser", runs(f("-u", "nosuchuser"), "true")...)},
	{"hostname", details, says("box\n", runs(f("--hostname", "box"), "hostname")...)},
	{"read-only root", details, func(t *testing.T, u user) {
		if r := u.run(t, runs(f("--read-only"), "touch", "/x")...); r.Code == 0 || !strings.Contains(r.Stderr, "Read-only") {
			t.Errorf("touch: code %d, %q", r.Code, r.Stderr)
		}
	}},
	{"read-only root with a tmpfs that is not", details, says("ok\n", runs(f("--read-only", "--tmpfs", "/t"), "sh", "-c", "touch /x 2>/dev/null || touch /t/x && echo ok")...)},
	{"tmpfs", details, says("tmpfs\n", runs(f("--tmpfs", "/t:size=1m"), "sh", "-c", "grep ' /t ' /proc/mounts | cut -d' ' -f1")...)},
	{"shm size", details, says("size=8192k\n", runs(f("--shm-size", "8m"), "sh", "-c", "grep ' /dev/shm ' /proc/mounts | grep -o size=8192k")...)},
	{"ulimit", details, says("100\n", runs(f("--ulimit", "nofile=100:100"), "sh", "-c", "ulimit -n")...)},
	{"memory limit", details, says("33554432\n", runs(f("-m", "32m"), "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes")...)},
	{"cpu limit", details, says("50000\n", runs(f("--cpus", "0.5"), "cat", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us")...)},
	{"pids limit", details, func(t *testing.T, u user) {
		says("42\n", runs(f("--pids-limit", "42"), "cat", "/sys/fs/cgroup/pids/pids.max")...)(t, u)
		if r := u.run(t, runs(f("--pids-limit", "4"), "sh", "-c", "sleep 1 & sleep 1 & sleep 1 & sleep 1 & sleep 1 & wait")...); !strings.Contains(r.Stderr, "fork") {
			t.Errorf("six processes where four may be: %+v", r)
		}
	}},
	{"default capabilities", details, says("00000000a80425fb\n", runs(nil, "sh", "-c", "grep CapEff /proc/self/status | cut -f2")...)},
	{"capabilities dropped and added", details, says("0000000000001000\n", runs(f("--cap-drop", "ALL", "--cap-add", "NET_ADMIN"), "sh", "-c", "grep CapEff /proc/self/status | cut -f2")...)},
	{"seccomp is on", details, says("2\n", runs(nil, "sh", "-c", "grep Seccomp: /proc/self/status | cut -f2")...)},
	{"seccomp can be switched off", details, says("0\n", runs(f("--security-opt", "seccomp=unconfined"), "sh", "-c", "grep Seccomp: /proc/self/status | cut -f2")...)},
	{"no new privileges", details, says("1\n", runs(f("--security-opt", "no-new-privileges"), "sh", "-c", "grep NoNewPrivs /proc/self/status | cut -f2")...)},
	{"privileged may mount, also where the machine lacks a capability", oursOnly, says("ok\n", runs(f("--privileged"), "sh", "-c", "mount -t tmpfs x /tmp && echo ok")...)},
	{"not privileged may not mount", details, func(t *testing.T, u user) {
		if r := u.run(t, runs(nil, "mount", "-t", "tmpfs", "x", "/tmp")...); r.Code == 0 {
			t.Error("an ordinary container mounted a tmpfs")
		}
	}},
	{"bind mount, also read-only", details, func(t *testing.T, u user) {
		dir := rig.Dir(t)
		u.must(t, runs(f("-v", dir+":/d"), "sh", "-c", "echo hi > /d/f")...)
		if data, _ := os.ReadFile(dir + "/f"); string(data) != "hi\n" {
			t.Errorf("the file holds %q", data)
		}
		if r := u.run(t, runs(f("-v", dir+":/d:ro"), "touch", "/d/g")...); r.Code == 0 {
			t.Error("a read-only bind mount was written")
		}
		says("hi\n", runs(f("--mount", "type=bind,src="+dir+",dst=/d"), "cat", "/d/f")...)(t, u)
	}},
	{"--mount of a missing source is refused", details, fails(125, "/no/such/dir", runs(f("--mount", "type=bind,src=/no/such/dir,dst=/d"), "true")...)},
	{"named volume keeps its content", details, func(t *testing.T, u user) {
		defer u.run(t, "volume", "rm", "vol")
		u.must(t, runs(f("-v", "vol:/v"), "sh", "-c", "echo kept > /v/f")...)
		says("kept\n", runs(f("-v", "vol:/v"), "cat", "/v/f")...)(t, u)
	}},
	{"detached: logs, wait, inspect, rm", basics, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sh", "-c", "echo out; echo err >&2; exit 3"))
		if len(id) != 64 {
			t.Fatalf("run -d says %q", id)
		}
		says("3\n", "wait", id)(t, u)
		r := u.run(t, "logs", id)
		if r.Stdout != "out\n" || r.Stderr != "err\n" {
			t.Errorf("logs: stdout %q, stderr %q", r.Stdout, r.Stderr)
		}
		says("exited 3\n", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id)(t, u)
		says(id[:12]+"\n", "ps", "-aq", "--filter", "id="+id)(t, u)
		u.must(t, "rm", id)
		if r := u.run(t, "inspect", id); r.Code == 0 {
			t.Error("removed container can be inspected")
		}
	}},
	{"logs --tail --timestamps --follow", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done"))
		defer u.must(t, "rm", "-f", id)
		says("line 1\nline 2\nline 3\nline 4\nline 5\n", "logs", "-f", id)(t, u)
		says("line 4\nline 5\n", "logs", "--tail", "2", id)(t, u)
		line := u.must(t, "logs", "-t", "--tail", "1", id)
		if _, err := time.Parse(time.RFC3339Nano, strings.Fields(line)[0]); err != nil {
			t.Errorf("timestamp: %v", err)
		}
	}},
	{"exec runs, passes stdin, user, environment and the exit code", basics, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sleep", "1000"))
		defer u.must(t, "rm", "-f", id)
		says("hi\n", "exec", id, "echo", "hi")(t, u)
		says("x /tmp 1\n", "exec", "-e", "A=x", "-w", "/tmp", "-u", "1", id, "sh", "-c", "echo $A $(pwd) $(id -u)")(t, u)
		cmd := u.cmd(t, "exec", "-i", id, "cat")
		cmd.Stdin = strings.NewReader("through\n")
		if out := rig.Must(t, cmd); out != "through\n" {
			t.Errorf("exec -i cat says %q", out)
		}
		if r := u.run(t, "exec", id, "sh", "-c", "exit 9"); r.Code != 9 {
			t.Errorf("exit code %d", r.Code)
		}
		if r := u.run(t, "exec", id, "nosuchcommand"); r.Code != 127 && r.Code != 126 {
			t.Errorf("unknown command: exit code %d", r.Code)
		}
		if out := terminalOf(t, u.cmd(t, "exec", "-it", id, "tty"), nil); !strings.Contains(out, "/dev/pts/") {
			t.Errorf("tty says %q", out)
		}
	}},
	{"stop, start, restart, kill", basics, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sh", "-c", "trap 'exit 5' TERM; echo set; while :; do sleep 0.05; done"))
		defer u.must(t, "rm", "-f", id)
		state := func(want string) {
			t.Helper()
			says(want+"\n", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id)(t, u)
		}
		prints(t, u, id, "set")
		u.must(t, "stop", id)
		state("exited 5")
		u.must(t, "start", id)
		state("running 0")
		u.must(t, "restart", "-t", "1", id)
		state("running 0")
		u.must(t, "kill", id)
		says("137\n", "wait", id)(t, u)
		state("exited 137")
	}},
	{"stop sends the signal that was asked for", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "--stop-signal", "USR1", "busybox", "sh", "-c", "trap 'exit 8' USR1; echo set; while :; do sleep 0.05; done"))
		defer u.must(t, "rm", "-f", id)
		prints(t, u, id, "set")
		u.must(t, "stop", id)
		says("exited 8\n", "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id)(t, u)
	}},
	{"pause and unpause", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sleep", "1000"))
		defer u.must(t, "rm", "-f", id)
		u.must(t, "pause", id)
		says("paused\n", "inspect", "-f", "{{.State.Status}}", id)(t, u)
		u.must(t, "unpause", id)
		says("running\n", "inspect", "-f", "{{.State.Status}}", id)(t, u)
	}},
	{"top, stats and rename", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sleep", "1000"))
		defer u.must(t, "rm", "-f", id)
		if out := u.must(t, "top", id); !strings.Contains(out, "sleep 1000") {
			t.Errorf("top says %q", out)
		}
		if out := u.must(t, "stats", "--no-stream", "--format", "{{.PIDs}}", id); out != "1\n" {
			t.Errorf("stats say %q processes", out)
		}
		u.must(t, "rename", id, "renamed")
		says("/renamed\n", "inspect", "-f", "{{.Name}}", id)(t, u)
	}},
	{"attach sees what comes", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-di", "busybox", "sh", "-c", "read x; echo got $x"))
		defer u.must(t, "rm", "-f", id)
		cmd := u.cmd(t, "attach", id)
		stdin, keep, err := os.Pipe() // the end of stdin would detach the output too
		if err != nil {
			t.Fatal(err)
		}
		defer stdin.Close()
		defer keep.Close()
		fmt.Fprintln(keep, "it")
		cmd.Stdin = stdin
		if out := rig.Must(t, cmd); out != "got it\n" {
			t.Errorf("attach says %q", out)
		}
	}},
	{"start -a shows output and passes the exit code", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "create", "busybox", "sh", "-c", "echo x; exit 4"))
		defer u.must(t, "rm", "-f", id)
		if r := u.run(t, "start", "-a", id); r.Code != 4 || r.Stdout != "x\n" {
			t.Errorf("code %d, %q", r.Code, r.Stdout)
		}
	}},
	{"ps filters and formats", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "--name", "filtered", "--label", "k=v", "busybox", "sleep", "1000"))
		defer u.must(t, "rm", "-f", id)
		says("filtered\n", "ps", "--filter", "label=k=v", "--format", "{{.Names}}")(t, u)
		says("filtered\n", "ps", "--filter", "name=filt", "--filter", "status=running", "--format", "{{.Names}}")(t, u)
		says("", "ps", "--filter", "label=k=other", "-q")(t, u)
		says(id+"\n", "ps", "-q", "--no-trunc", "--filter", "label=k")(t, u)
		var row map[string]string
		if err := json.Unmarshal([]byte(u.must(t, "ps", "--filter", "label=k", "--format", "json")), &row); err != nil || row["Names"] != "filtered" {
			t.Errorf("json: %v %v", err, row)
		}
	}},
	{"images, tag, history, rmi", details, func(t *testing.T, u user) {
		u.must(t, "tag", "busybox", "other:1")
		says("other:1\n", "images", "--format", "{{.Repository}}:{{.Tag}}", "other")(t, u)
		if out := u.must(t, "history", "-q", "other:1"); out == "" {
			t.Error("history is empty")
		}
		says("linux amd64\n", "inspect", "-f", "{{.Os}} {{.Architecture}}", "other:1")(t, u)
		if out := u.must(t, "rmi", "other:1"); !strings.Contains(out, "Untagged: other:1") {
			t.Errorf("rmi says %q", out)
		}
		says("hello\n", runs(nil, "echo", "hello")...)(t, u)
	}},
	{"an image in use is not removed", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "create", "busybox", "true"))
		defer u.must(t, "rm", id)
		if r := u.run(t, "rmi", "busybox"); r.Code != 1 || !strings.Contains(r.Stderr, id[:12]) {
			t.Errorf("code %d: %q", r.Code, r.Stderr)
		}
	}},
	{"save and load", details, func(t *testing.T, u user) {
		file := filepath.Join(rig.Dir(t), "saved.tar")
		u.must(t, "tag", "busybox", "saved:1")
		u.must(t, "save", "-o", file, "saved:1")
		u.must(t, "rmi", "saved:1")
		if out := u.must(t, "load", "-i", file); !strings.Contains(out, "Loaded image: saved:1") {
			t.Errorf("load says %q", out)
		}
		defer u.must(t, "rmi", "saved:1")
		says("hello\n", "run", "--rm", "saved:1", "echo", "hello")(t, u)
		load := u.cmd(t, "load", "-q")
		in, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		load.Stdin = in
		rig.Must(t, load)
	}},
	{"diff and commit", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "create", "-e", "KEPT=1", "busybox", "sh", "-c", "echo new > /root/new; rm /etc/group; echo more >> /etc/passwd"))
		defer u.must(t, "rm", "-f", id)
		u.must(t, "start", "-a", id)
		out := u.must(t, "diff", id)
		for _, line := range []string{"A /root/new\n", "D /etc/group\n", "C /etc/passwd\n"} {
			if !strings.Contains(out, line) {
				t.Errorf("diff %q lacks %q", out, line)
			}
		}
		u.must(t, "commit", "-m", "why", "-c", "CMD [\"cat\", \"/root/new\"]", id, "committed:1")
		defer u.must(t, "rmi", "committed:1")
		says("new\n", "run", "--rm", "committed:1")(t, u)
		says("1 gone\n", "run", "--rm", "committed:1", "sh", "-c", "test -e /etc/group || echo $KEPT gone")(t, u)
		if out := u.must(t, "history", "--format", "{{.Comment}}", "committed:1"); !strings.HasPrefix(out, "why\n") {
			t.Errorf("history says %q", out)
		}
	}},
	{"info, version and events", details, func(t *testing.T, u user) {
		if out := u.must(t, "info", "--format", "{{.Driver}} {{.OSType}}"); !strings.Contains(out, "overlay") || !strings.Contains(out, "linux") {
			t.Errorf("info says %q", out)
		}
		if out := u.must(t, "version", "--format", "{{.Server.Version}}"); strings.TrimSpace(out) == "" {
			t.Error("no server version")
		}
		since := fmt.Sprint(time.Now().Add(-time.Second).Unix())
		u.must(t, runs(nil, "true")...)
		out := u.must(t, "events", "--since", since, "--until", fmt.Sprint(time.Now().Add(time.Second).Unix()), "--filter", "type=container", "--format", "{{.Action}}")
		for _, action := range []string{"create", "attach", "start", "die", "destroy"} {
			if !strings.Contains(out, action) {
				t.Errorf("events %q lack %s", out, action)
			}
		}
	}},
	{"cp in and out", details, func(t *testing.T, u user) {
		dir := rig.Dir(t)
		if err := os.WriteFile(dir+"/f", []byte("copied\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sleep", "1000"))
		defer u.must(t, "rm", "-f", id)
		u.must(t, "cp", dir+"/f", id+":/tmp/g")
		says("copied\n", "exec", id, "cat", "/tmp/g")(t, u)
		u.must(t, "cp", id+":/tmp/g", dir+"/h")
		if data, _ := os.ReadFile(dir + "/h"); string(data) != "copied\n" {
			t.Errorf("copied out: %q", data)
		}
		if err := os.MkdirAll(dir+"/d/e", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("e/none", dir+"/d/link"); err != nil {
			t.Fatal(err)
		}
		u.must(t, "cp", dir+"/d", id+":/tmp")
		says("e/none\n", "exec", id, "readlink", "/tmp/d/link")(t, u)
		cmd := u.cmd(t, "cp", id+":/tmp/d", "-")
		if list := rig.Must(t, cmd); !strings.Contains(list, "d/e/") {
			t.Errorf("the tar has %d bytes and no d/e/", len(list))
		}
		if r := u.run(t, "cp", id+":/none", dir); r.Code != 1 || !strings.Contains(r.Stderr, "/none") {
			t.Errorf("a file that is not there: %+v", r)
		}
	}},
	{"the default bridge has an address, a gateway and hosts", basics, func(t *testing.T, u user) {
		out := u.must(t, runs(f("--add-host", "db:10.1.2.3", "--dns", "10.9.9.9"), "sh", "-c", "ip -4 -o addr show eth0; ip route; cat /etc/hosts /etc/resolv.conf")...)
		for _, want := range []string{"inet 172.", "default via 172.", "10.1.2.3\tdb", "nameserver 10.9.9.9", "127.0.0.1\tlocalhost"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in %s", want, out)
			}
		}
	}},
	{"no network has loopback only", basics, says("lo\n", runs(f("--network", "none"), "ls", "/sys/class/net")...)},
	{"the network of another container", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sleep", "1000"))
		defer u.must(t, "rm", "-f", id)
		address := u.must(t, "exec", id, "ip", "-4", "-o", "addr", "show", "eth0")
		if got := u.must(t, runs(f("--network", "container:"+id), "ip", "-4", "-o", "addr", "show", "eth0")...); got != address {
			t.Errorf("%q, want %q", got, address)
		}
	}},
	{"the host's network", details, func(t *testing.T, u user) {
		want := rig.Must(t, u.host.Command("ip", "-o", "link", "show", "lo"))
		if got := u.must(t, runs(f("--network", "host"), "sh", "-c", "ip -o link show lo | cut -c1-6")...); got != want[:6]+"\n" {
			t.Errorf("%q, want %q", got, want)
		}
	}},
	{"published ports answer from the host", basics, func(t *testing.T, u user) {
		// busybox has no server for UDP; Debian's nc echoes by way of a fifo.
		id := strings.TrimSpace(u.must(t, "run", "-d", "-p", "127.0.0.1:8081:80", "-p", "8082-8083:82-83/udp", "-v", "/usr:/host/usr:ro", "busybox", "sh", "-c",
			"echo served > /index.html; httpd -p 80 -h /; ln -s usr/lib usr/lib64 /host; mkfifo /echo; chroot /host nc.openbsd -u -l 83 </echo | cat >/echo"))
		defer u.must(t, "rm", "-f", id)
		says("127.0.0.1:8081\n", "port", id, "80")(t, u)
		if out := u.must(t, "port", id, "82/udp"); !strings.HasPrefix(out, "0.0.0.0:8082\n") {
			t.Errorf("the first of a range is at %q", out)
		}
		serves(t, u, "http://127.0.0.1:8081/index.html")
		rig.Eventually(t, func() error {
			echo := u.host.Command("nc.openbsd", "-u", "-p", "9083", "-w", "1", "127.0.0.1", "8083") // nc answers its first peer alone
			echo.Stdin = strings.NewReader("by udp\n")
			if out, err := echo.Output(); string(out) != "by udp\n" {
				return fmt.Errorf("udp answers %q, %v", out, err)
			}
			return nil
		})
		if r := u.run(t, "run", "--rm", "-p", "127.0.0.1:8081:80", "busybox", "true"); r.Code != 125 || !strings.Contains(r.Stderr, "8081") {
			t.Errorf("a port in use: code %d, %q", r.Code, r.Stderr)
		}
	}},
	{"-P publishes what is exposed, on ports that are free", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "--expose", "80", "-P", "busybox", "sh", "-c", "echo served > /index.html; httpd -f -p 80 -h /"))
		defer u.must(t, "rm", "-f", id)
		at, _, _ := strings.Cut(u.must(t, "port", id, "80/tcp"), "\n")
		_, port, found := strings.Cut(at, ":")
		if !found {
			t.Fatalf("port 80 is at %q", at)
		}
		serves(t, u, "http://127.0.0.1:"+port+"/index.html")
	}},
	{"a network of the user's own resolves names", details, func(t *testing.T, u user) {
		u.must(t, "network", "create", "--subnet", "10.222.5.0/24", "own")
		defer u.must(t, "network", "rm", "own")
		says("own bridge\n", "network", "ls", "--filter", "name=own", "--format", "{{.Name}} {{.Driver}}")(t, u)
		u.must(t, "run", "-d", "--network", "own", "--network-alias", "alias", "--name", "server", "busybox", "sh", "-c", "echo served > /index.html; httpd -f -p 80 -h /")
		defer u.must(t, "rm", "-f", "server")
		address := strings.TrimSpace(u.must(t, "inspect", "-f", "{{.NetworkSettings.Networks.own.IPAddress}}", "server"))
		if !strings.HasPrefix(address, "10.222.5.") {
			t.Errorf("the address is %q", address)
		}
		for _, name := range []string{"server", "alias"} {
			if out := u.must(t, runs(f("--network", "own"), "nslookup", name)...); !strings.Contains(out, address) {
				t.Errorf("nslookup %s says %q, not %s", name, out, address)
			}
		}
		if r := u.run(t, "network", "rm", "own"); r.Code != 1 || !strings.Contains(r.Stderr, "own") {
			t.Errorf("a network in use was removed: %+v", r)
		}
		id := strings.TrimSpace(u.must(t, "run", "-d", "busybox", "sleep", "1000"))
		defer u.must(t, "rm", "-f", id)
		get := "printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' | nc -w 2 " + address + " 80 | tail -n 1" // a static wget wants the C library's files
		if r := u.run(t, "exec", id, "sh", "-c", get); r.Stdout != "" || !strings.Contains(r.Stderr, "nc: ") {
			t.Errorf("one network reaches into the other: %+v", r)
		}
		u.must(t, "network", "connect", "own", id)
		says("served\n", "exec", id, "sh", "-c", get)(t, u)
		u.must(t, "network", "disconnect", "own", id)
		says("eth0\nlo\n", "exec", id, "ls", "/sys/class/net")(t, u)
	}},
	{"an unknown network is refused", details, fails(125, "nosuchnet", runs(f("--network", "nosuchnet"), "true")...)},
	{"restart policy brings a container back", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 1"))
		defer u.must(t, "rm", "-f", id)
		rig.Eventually(t, func() error {
			if got := u.must(t, "inspect", "-f", "{{.RestartCount}} {{.State.Status}}", id); got != "2 exited\n" {
				return fmt.Errorf("state %q", got)
			}
			return nil
		})
	}},
	{"health checks", details, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "--health-cmd", "test -e /ok", "--health-interval", "200ms", "--health-retries", "1", "busybox", "sleep", "1000"))
		defer u.must(t, "rm", "-f", id)
		health := func(want string) {
			t.Helper()
			rig.Eventually(t, func() error {
				if got := strings.TrimSpace(u.must(t, "inspect", "-f", "{{.State.Health.Status}}", id)); got != want {
					return fmt.Errorf("health %q, want %q", got, want)
				}
				return nil
			})
		}
		health("unhealthy")
		u.must(t, "exec", id, "touch", "/ok")
		health("healthy")
	}},
	{"an init reaps and forwards signals", oursOnly, func(t *testing.T, u user) {
		id := strings.TrimSpace(u.must(t, "run", "-d", "--init", "busybox", "sh", "-c", "(sleep 0.1 &); exec sleep 1000"))
		defer u.must(t, "rm", "-f", id)
		rig.Eventually(t, func() error { // two are left: the init and the program
			if out := u.must(t, "exec", id, "sh", "-c", "cat /proc/[0-9]*/stat | grep '(sleep)' | cut -d' ' -f2,3"); out != "(sleep) S\n" {
				return fmt.Errorf("sleepers are %q", out)
			}
			return nil
		})
		start := time.Now()
		u.must(t, "stop", id)
		if took := time.Since(start); took > 9*time.Second {
			t.Errorf("stop took %v", took)
		}
	}},
	{"nothing is left of containers that are gone", basics, func(t *testing.T, u user) {
		if left := u.must(t, "ps", "-aq"); left != "" {
			t.Errorf("containers left: %s", left)
		}
	}},
}

// serves waits until a web server on a published port answers.
func serves(t *testing.T, u user, url string) {
	t.Helper()
	rig.Eventually(t, func() error {
		out, err := u.host.Command("curl", "-s", "-m", "2", url).Output()
		if err == nil && string(out) != "served\n" {
			err = fmt.Errorf("answer %q", out)
		}
		return err
	})
}

// prints waits until a container has printed that.
func prints(t *testing.T, u user, id, what string) {
	t.Helper()
	rig.Eventually(t, func() error {
		if out := u.must(t, "logs", id); !strings.Contains(out, what) {
			return fmt.Errorf("logs say %q", out)
		}
		return nil
	})
}

// terminal runs args on a pseudo terminal of 33 rows and 101 columns, types keys
// when something has been shown, and returns all that was.
func terminal(t *testing.T, u user, args []string, keys []byte) string {
	t.Helper()
	return terminalOf(t, u.cmd(t, args...), keys)
}

func terminalOf(t *testing.T, cmd *exec.Cmd, keys []byte) string {
	t.Helper()
	tty, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 101})
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	timer := time.AfterFunc(2*time.Minute, func() {
		t.Errorf("%s: still running after two minutes", cmd)
		cmd.Process.Kill()
	})
	defer timer.Stop()
	first := make([]byte, 1<<10)
	n, _ := tty.Read(first)
	_, _ = tty.Write(keys)     // before, the terminal itself would take them
	rest, _ := io.ReadAll(tty) // a terminal ends with EIO
	cmd.Wait()
	return string(first[:n]) + string(rest)
}
