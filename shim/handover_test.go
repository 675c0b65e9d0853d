package shim_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	sandboxapi "github.com/containerd/containerd/api/runtime/sandbox/v1"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/api/stdio"
)

// upgrade has the shim hand itself over.
func (t *task) upgrade() {
	t.t.Helper()
	if err := call(t.conn, "Upgrade"); err != nil {
		t.t.Fatalf("upgrade: %v", err)
	}
}

// call calls a method of the shim's own service.
func call(conn *ttrpc.Client, method string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return conn.Call(ctx, "gantry.shim.v1.Shim", method, &emptypb.Empty{}, &emptypb.Empty{})
}

// handovers has the shim hand itself over again and again, until stop, which says
// how often it did.
func (t *task) handovers() (stop func() int) {
	t.t.Helper()
	conn, err := net.Dial("unix", t.socket)
	if err != nil {
		t.t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	end := make(chan struct{})
	done := make(chan int)
	go func() {
		defer client.Close()
		for n := 0; ; n++ {
			select {
			case <-end:
				done <- n
				return
			case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond):
			}
			if err := call(client, "Upgrade"); err != nil {
				t.t.Errorf("handover %d: %v", n, err)
				<-end
				done <- n
				return
			}
		}
	}()
	return func() int {
		close(end)
		return <-done
	}
}

// handedOver says whether the shim has handed itself over.
func handedOver(pid int) bool {
	argv, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return bytes.Contains(argv, []byte("-resume"))
}

func TestAShimHandsItselfOverOnceItsContainerRuns(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		pid := c.create(runtime, uris{})
		shim := c.shimPid()
		before := standing(t, shim)
		c.run("")
		eventually(t, "the shim hands itself over", func() bool { return handedOver(shim) })
		if got := c.shimPid(); got != shim {
			t.Errorf("it is process %d, was %d", got, shim)
		}
		if after := standing(t, shim); after != before {
			t.Errorf("it stands as\n%s\nwas\n%s", after, before)
		}
		if st := c.state(""); st.Status != tasktypes.Status_RUNNING || st.Pid != pid {
			t.Errorf("the state is %v", st)
		}
		c.kill("", 9)
		if got := c.wait(""); got != 137 {
			t.Errorf("exit status is %d", got)
		}
		c.delete("")
		d.wantTopics("create", "start", "exit", "delete")
		c.wantNothingLeft()
	})
}

// standing is what a process keeps: name, session, parent, working directory,
// cgroups, oom score, environment.
func standing(t *testing.T, pid int) string {
	t.Helper()
	var b strings.Builder
	for _, file := range []string{"comm", "cgroup", "oom_score_adj", "environ"} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s: %q\n", file, data)
	}
	dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		t.Fatal(err)
	}
	sid, err := unix.Getsid(pid)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "cwd: %s\nsession: %d\n", dir, sid)
	return b.String()
}

// counting writes "seq 1 1000" again and again until SIGTERM, and then "end".
const counting = `trap 'stop=1' TERM; while [ -z "$stop" ]; do seq 1 1000; done; echo end`

// wantCounting says what is wrong with the output of counting.
func wantCounting(t *testing.T, got string) {
	t.Helper()
	lines := strings.Split(got, "\n")
	if n := len(lines); n < 1000 || lines[n-2] != "end" || lines[n-1] != "" {
		t.Fatalf("%d lines end in %q", n, got[max(0, len(got)-100):])
	}
	for i, line := range lines[:len(lines)-2] {
		if want := strconv.Itoa(i%1000 + 1); line != want {
			t.Fatalf("line %d is %q, want %q", i, line, want)
		}
	}
}

func TestOutputIsWholeAcrossHandovers(t *testing.T) {
	const times = 25
	for _, test := range []struct {
		name string
		tty  bool
		open func(c *task) (u uris, read func() string)
	}{
		{"a json-file that rotates", false, func(c *task) (uris, func() string) {
			l := c.logger(c.id, func(l *stdio.Logger) { l.MaxSize, l.MaxFile = 1<<20, 200 })
			return uris{stdout: l.URI(), stderr: l.URI()}, func() string {
				var all strings.Builder
				files, _ := filepath.Glob(l.Log + ".*")
				for i := len(files); i > 0; i-- {
					all.WriteString(logged(t, fmt.Sprintf("%s.%d", l.Log, i), "stdout"))
				}
				return all.String() + logged(t, l.Log, "stdout")
			}
		}},
		{"a CRI log", false, func(c *task) (uris, func() string) {
			l := c.logger(c.id, func(l *stdio.Logger) { l.Driver = stdio.CRI })
			return uris{stdout: l.URI(), stderr: l.URI()}, func() string {
				var all strings.Builder
				data, err := os.ReadFile(l.Log)
				if err != nil {
					t.Fatal(err)
				}
				for line := range strings.Lines(string(data)) {
					all.WriteString(strings.SplitN(line, " ", 4)[3])
				}
				return all.String()
			}
		}},
		{"a terminal's fifo", true, func(c *task) (uris, func() string) {
			out := c.fifo(c.id + ".out")
			f, err := os.OpenFile(out, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			got := make(chan string)
			go func() {
				var b bytes.Buffer
				buf := make([]byte, 1<<16)
				for !bytes.HasSuffix(b.Bytes(), []byte("end\r\n")) {
					n, err := f.Read(buf)
					if err != nil {
						break
					}
					b.Write(buf[:n])
				}
				f.Close()
				got <- strings.ReplaceAll(b.String(), "\r\n", "\n")
			}()
			return uris{stdout: out, tty: true}, func() string { return <-got }
		}},
		{"a foreign logger", false, func(c *task) (uris, func() string) {
			program, log := filepath.Join(c.dir, "logger"), filepath.Join(c.dir, "logged")
			script := "#!/bin/sh\nexec 5>&-\nexec cat <&3 >" + log + "\n"
			if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			return uris{stdout: "binary://" + program, stderr: "binary://" + program}, func() string {
				var data []byte
				eventually(t, "the logger ends", func() bool {
					data, _ = os.ReadFile(log)
					return bytes.HasSuffix(data, []byte("end\n"))
				})
				return string(data)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDaemon(t)
			s := spec("sh", "-c", counting)
			s.Process.Terminal = test.tty
			c := d.newTask("count", s)
			u, read := test.open(c)
			c.create("", u)
			waited := make(chan uint32)
			go func() { waited <- c.wait("") }()
			c.run("")
			for range times {
				c.upgrade()
			}
			c.kill("", uint32(unix.SIGTERM))
			if got := <-waited; got != 0 {
				t.Errorf("exit status is %d", got)
			}
			wantCounting(t, read())
			c.delete("")
			c.wantNothingLeft()
		})
	}
}

// A line without an end is one line, although it came half before and half after.
func TestALineIsOneAcrossAHandover(t *testing.T) {
	d := newDaemon(t)
	c := d.newTask("line", spec("sh", "-c", "printf half; read a; echo $a"))
	l := d.logger("line", func(l *stdio.Logger) { l.Stdin = true })
	c.create("", uris{stdout: l.URI(), stderr: l.URI()})
	conn := d.attach(l, stdio.Hello{Stdin: true, Stdout: true})
	defer conn.Close()
	c.run("")
	frame := make([]byte, stdio.FrameHeaderLen+len("half"))
	if _, err := io.ReadFull(conn, frame); err != nil {
		t.Fatal(err)
	}
	c.upgrade()
	fmt.Fprintln(conn, "and half")
	if got := c.wait(""); got != 0 {
		t.Errorf("exit status is %d", got)
	}
	data, err := os.ReadFile(l.Log)
	if err != nil || bytes.Count(data, []byte("\n")) != 1 || logged(t, l.Log, "stdout") != "halfand half\n" {
		t.Errorf("the log is %q, %v", data, err)
	}
	c.delete("")
}

// Clients stay attached: one that feeds a container which is slow to read, one that
// reads all at once, and one that reads nothing until the end.
func TestAttachedClientsStayAcrossHandovers(t *testing.T) {
	d := newDaemon(t)
	c := d.newTask("attach", spec("sh", "-c", "sleep 1; exec cat"))
	l := d.logger("attach", func(l *stdio.Logger) { l.Stdin = true })
	c.create("", uris{stdout: l.URI(), stderr: l.URI()})
	slow := d.attach(l, stdio.Hello{Stdout: true})
	feeder := d.attach(l, stdio.Hello{Stdin: true, Stdout: true, CloseStdin: true})
	defer slow.Close()
	defer feeder.Close()
	c.run("")
	big := make([]byte, 4<<20)
	for i := range big {
		big[i] = byte(rand.N(256))
	}
	fed := make(chan error)
	go func() {
		_, err := feeder.Write(big)
		fed <- err
	}()
	stop := c.handovers() // while input waits
	late := d.attach(l, stdio.Hello{Stdin: true})
	c.upgrade()
	c.upgrade()
	late.Close()
	got := make(chan []byte)
	go func() {
		out, err := demux(feeder)
		if err != nil {
			t.Error(err)
		}
		got <- out[1].Bytes()
	}()
	go func() {
		if err := <-fed; err != nil {
			t.Error(err)
		}
		feeder.CloseWrite()
	}()
	if b := <-got; !bytes.Equal(b, big) {
		t.Errorf("the feeder got %d bytes, want %d", len(b), len(big))
	}
	if got := c.wait(""); got != 0 {
		t.Errorf("exit status is %d", got)
	}
	c.upgrade() // the process has ended; one client is behind
	if n := stop(); n < 3 {
		t.Errorf("only %d handovers", n)
	}
	out, err := demux(slow)
	if err != nil || !bytes.Equal(out[1].Bytes(), big) {
		t.Errorf("the slow client got %d bytes, want %d, %v", out[1].Len(), len(big), err)
	}
	c.delete("")
	c.wantNothingLeft()
}

func TestATerminalGoesOnAcrossHandovers(t *testing.T) {
	for name, open := range map[string]func(c *task) (u uris, w io.WriteCloser, r io.Reader){
		"attached": func(c *task) (uris, io.WriteCloser, io.Reader) {
			l := c.logger(c.id, func(l *stdio.Logger) { l.Stdin, l.TTY = true, true })
			return uris{stdout: l.URI(), tty: true}, nil, nil
		},
		"fifos": func(c *task) (uris, io.WriteCloser, io.Reader) {
			in, out := c.fifo("in"), c.fifo("out")
			r, err := os.OpenFile(out, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			w, err := os.OpenFile(in, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			return uris{stdin: in, stdout: out, tty: true}, w, r
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			s := spec("sh", "-c", "stty -echo; while read a; do echo $a $(stty size); done")
			s.Process.Terminal = true
			c := d.newTask("tty", s)
			u, w, r := open(c)
			c.create("", u)
			if w == nil {
				l, err := stdio.ParseLogger(u.stdout)
				if err != nil {
					t.Fatal(err)
				}
				conn := d.attach(l, stdio.Hello{Stdin: true, Stdout: true})
				w, r = conn, conn
			}
			defer w.Close()
			c.run("")
			for i := range 10 {
				c.upgrade()
				c.resize(uint32(20+i), 100)
				fmt.Fprintf(w, "line%d\n", i)
				want := fmt.Sprintf("line%d %d 100\r\n", i, 20+i)
				var got []byte
				for b := make([]byte, 1); !strings.HasSuffix(string(got), want); {
					if _, err := r.Read(b); err != nil {
						t.Fatalf("%v after %q", err, got)
					}
					got = append(got, b[0])
				}
			}
			c.kill("", 9)
			c.wait("")
			c.delete("")
		})
	}
}

func TestExecsGoOnAcrossHandovers(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		c.create(runtime, uris{})
		c.run("")
		in, out := d.fifo("in"), d.fifo("out")
		stdout := d.collect(out)
		c.exec("runs", uris{stdin: in, stdout: out}, "sh", "-c", "cat; exit 9")
		c.run("runs")
		c.exec("waits", uris{}, "sh", "-c", "exit 8")
		c.exec("has ended", uris{}, "sh", "-c", "exit 7")
		c.run("has ended")
		c.wait("has ended")
		waited := make(chan uint32)
		go func() { waited <- c.wait("runs") }()
		c.upgrade()
		c.upgrade()
		if got := c.wait("has ended"); got != 7 {
			t.Errorf("exit status of one that had ended is %d", got)
		}
		c.run("waits")
		if got := c.wait("waits"); got != 8 {
			t.Errorf("exit status of one that was started after is %d", got)
		}
		w, err := os.OpenFile(in, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(w, "through the fifo")
		w.Close()
		if _, err := c.client.CloseIO(c.context(), &taskv3.CloseIORequest{ID: c.id, ExecID: "runs", Stdin: true}); err != nil {
			t.Error(err)
		}
		if got := <-waited; got != 9 {
			t.Errorf("exit status of one that ran is %d", got)
		}
		if got := stdout(); got != "through the fifo\n" {
			t.Errorf("stdout is %q", got)
		}
		for _, id := range []string{"runs", "waits", "has ended"} {
			c.delete(id)
		}
		c.kill("", 9)
		c.wait("")
		c.delete("")
		c.wantNothingLeft()
	})
}

// Exits that come at any moment of a handover are told once, to who waits and as
// events, and calls that come at any moment are answered.
func TestExitsAreToldOnceAcrossHandovers(t *testing.T) {
	const execs = 120
	d := newDaemon(t)
	c := d.newTask("one", spec("sleep", "1000"))
	c.create("", uris{})
	c.run("")
	stop := c.handovers()
	var work sync.WaitGroup
	for worker := range 3 {
		work.Go(func() {
			for i := range execs / 3 {
				id := fmt.Sprintf("e%d-%d", worker, i)
				c.exec(id, uris{}, "sh", "-c", fmt.Sprintf("sleep 0.0%02d; exit %d", rand.IntN(40), i))
				c.run(id)
				if got := c.wait(id); got != uint32(i) {
					t.Errorf("exit status of %s is %d, want %d", id, got, i)
				}
				c.delete(id)
			}
		})
	}
	work.Wait()
	if n := stop(); n < 10 {
		t.Errorf("only %d handovers", n)
	}
	c.kill("", 9)
	c.wait("")
	told := map[string]int{}
	for _, e := range d.exits(execs + 1) {
		told[e.ID]++
	}
	for id, n := range told {
		if n != 1 {
			t.Errorf("the exit of %s was told %d times", id, n)
		}
	}
	c.delete("")
	c.wantNothingLeft()
}

// Whoever waits for the container is told, whatever happens at the same moment.
func TestTheLastExitMeetsAHandover(t *testing.T) {
	for i := range 20 {
		d := newDaemon(t)
		c := d.newTask(fmt.Sprint("one", i), spec("sleep", "1000"))
		c.create("", uris{})
		c.run("")
		waited := make(chan uint32)
		go func() { waited <- c.wait("") }()
		var work sync.WaitGroup
		work.Go(func() { c.upgrade() })
		work.Go(func() {
			time.Sleep(time.Duration(i) * time.Millisecond)
			c.kill("", 9)
		})
		if got := <-waited; got != 137 {
			t.Errorf("exit status is %d", got)
		}
		work.Wait()
		d.wantTopics("create", "start", "exit")
		c.delete("")
		c.wantNothingLeft()
	}
}

func TestEventsThatWaitAreHandedOver(t *testing.T) {
	d := newDaemon(t)
	d.server.Close()
	c := d.newTask("one", spec("sleep", "1000"))
	c.create("", uris{})
	c.run("")
	c.upgrade()
	c.kill("", 9)
	c.wait("")
	c.upgrade()
	c.delete("")
	d.listen()
	d.wantTopics("create", "start", "exit", "delete")
	c.wantNothingLeft()
}

func TestAnOOMIsToldAfterAHandover(t *testing.T) {
	d := newDaemon(t)
	s := spec("sh", "-c", "read go; exec dd if=/dev/zero of=/dev/null bs=64M count=1")
	s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}}
	c := d.newTask("oom", s)
	l := d.logger("oom", func(l *stdio.Logger) { l.Stdin = true })
	c.create("", uris{stdout: l.URI(), stderr: l.URI()})
	conn := d.attach(l, stdio.Hello{Stdin: true})
	defer conn.Close()
	c.run("")
	shim := c.shimPid()
	eventually(t, "OOM is watched for", func() bool {
		open := strings.Join(descriptors(t, shim), " ")
		return strings.Count(open, "[eventfd]") == 2 || strings.Contains(open, "inotify") // one is the poller's
	})
	c.upgrade()
	fmt.Fprintln(conn, "go")
	if got := c.wait(""); got != 137 {
		t.Errorf("exit status is %d", got)
	}
	c.delete("")
	d.wantTopics("create", "start", "oom", "exit", "delete")
}

func TestAPodIsHandedOver(t *testing.T) {
	ctx := context.Background()
	d := newDaemon(t)
	p := newPod(d.newTask("pod", spec("sleep", "1000")))
	p.ok(nil, p.create())
	p.ok(p.sandbox.StartSandbox(ctx, &sandboxapi.StartSandboxRequest{SandboxID: p.id}))
	c := d.prepare("member", spec("sleep", "1000"))
	c.client, c.conn, c.socket = p.client, p.conn, p.socket
	c.create("", uris{}) // and not started yet
	before := p.status()
	waited := make(chan uint32)
	go func() {
		r, err := p.sandbox.WaitSandbox(ctx, &sandboxapi.WaitSandboxRequest{SandboxID: p.id})
		p.ok(nil, err)
		waited <- r.GetExitStatus()
	}()
	c.upgrade()
	if after := p.status(); after.String() != before.String() {
		t.Errorf("the sandbox is %v, was %v", after, before)
	}
	c.run("")
	c.kill("", 9)
	c.wait("")
	c.delete("")
	p.ok(p.sandbox.StopSandbox(ctx, &sandboxapi.StopSandboxRequest{SandboxID: p.id}))
	if got := <-waited; got != 137 {
		t.Errorf("the sandbox ended with %d", got)
	}
	c.upgrade()
	if st := p.status(); st.State != "SANDBOX_NOTREADY" {
		t.Errorf("the sandbox is %s", st.State)
	}
	p.ok(p.sandbox.ShutdownSandbox(ctx, &sandboxapi.ShutdownSandboxRequest{SandboxID: p.id}))
	gone(t, p.shim)
	p.wantNothingLeft()
}

// install puts what from is where the program to was, as an upgrade does.
func install(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	installText(t, string(data), to)
}

func installText(t *testing.T, text, to string) {
	t.Helper()
	if err := os.WriteFile(to+".new", []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

// installed has d's shims be of a program of d's own, which can be replaced.
func (d *daemon) installed(t *testing.T) (program string) {
	t.Helper()
	program = filepath.Join(d.dir, "containerd-shim-gantry-v2")
	install(t, binary, program)
	old := binary
	binary = program
	t.Cleanup(func() { binary = old })
	return program
}

func TestUpgradeTakesUpTheNewProgram(t *testing.T) {
	d := newDaemon(t)
	newer := filepath.Join(d.dir, "newer")
	build := exec.Command("go", "build", "-ldflags", "-X github.com/gantryd/gantry/internal/version.Version=99.0.0", "-o", newer, "../cmd/containerd-shim-gantry-v2")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	program := d.installed(t)
	var all []*task
	for _, id := range []string{"one", "two"} {
		c := d.newTask(id, spec("sleep", "1000"))
		c.create("", uris{})
		c.run("")
		all = append(all, c)
	}
	install(t, newer, program)
	dead := filepath.Join(filepath.Dir(all[0].socket), "dead") // of a shim that was killed
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	out, err := exec.Command(program, "-address", d.socket(), "upgrade").CombinedOutput()
	if err != nil {
		t.Errorf("upgrade: %v: %s", err, out)
	}
	for _, c := range all {
		pid := c.shimPid()
		if want := fmt.Sprintf("%d 99.0.0\n", pid); !strings.Contains(string(out), want) {
			t.Errorf("upgrade says %q, want %q in it", out, want)
		}
		if exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); err != nil || exe != program {
			t.Errorf("the shim runs %s, %v", exe, err)
		}
		c.kill("", 9)
		c.wait("")
		c.delete("")
		c.wantNothingLeft()
	}
}

// A program that cannot go on is not taken up, whatever is wrong with it.
func TestAProgramThatCannotGoOnIsNotTakenUp(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"it does not know the state", "#!/bin/sh\necho 'state has version 7' >&2; exit 1\n", "state has version 7"},
		{"it is no program", "nonsense", "exec format error"},
		{"it cannot be executed once it was tried", "#!/bin/sh\nchmod a-x \"$0\"\n", "permission denied"},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := newDaemon(t)
			program := d.installed(t)
			c := d.newTask("one", spec("sh", "-c", counting))
			l := d.logger("one", nil)
			c.create("", uris{stdout: l.URI(), stderr: l.URI()})
			c.run("")
			installText(t, test.script, program)
			waited := make(chan uint32)
			go func() { waited <- c.wait("") }()
			for range 3 {
				if err := call(c.conn, "Upgrade"); status.Code(err) != codes.Unknown || !strings.Contains(err.Error(), test.want) {
					t.Errorf("upgrade: %v, want %q", err, test.want)
				}
				if err := os.Chmod(program, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			install(t, "/proc/"+strconv.Itoa(c.shimPid())+"/exe", program)
			for _, fd := range descriptors(t, c.shimPid()) {
				if strings.Contains(fd, "shim-state") {
					t.Errorf("it keeps %s", fd)
				}
			}
			c.kill("", uint32(unix.SIGTERM))
			if got := <-waited; got != 0 {
				t.Errorf("exit status is %d", got)
			}
			c.delete("")
			c.wantNothingLeft()
		})
	}
}

// A shim that is killed between the exec and taking over is one that was killed.
func TestAShimThatIsKilledInAHandoverIsCleanedUpAfter(t *testing.T) {
	d := newDaemon(t)
	built := binary
	program := d.installed(t)
	c := d.newTask("one", spec("sleep", "1000"))
	pid := c.create("", uris{})
	c.run("")
	shim := c.shimPid()
	before := descriptors(t, shim)
	installText(t, "#!/bin/sh\ncase \"$*\" in *-trial) exit 0;; esac\nexec /bin/sleep 1000\n", program)
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go call(ttrpc.NewClient(conn), "Upgrade")
	eventually(t, "the other program runs", func() bool {
		exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", shim))
		return strings.HasSuffix(exe, "sleep") || strings.HasSuffix(exe, "coreutils")
	})
	if after := descriptors(t, shim); len(after) > len(before)+2 {
		t.Errorf("it got %v, had %v", after, before)
	}
	if err := unix.Kill(shim, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	gone(t, shim)
	install(t, built, program)
	c.command("delete").output()
	gone(t, int(pid))
	c.conn.Close()
	c.wantNothingLeft()
}
