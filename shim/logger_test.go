package shim_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/api/stdio"
)

// foreignShim is Debian's package containerd's.
const foreignShim = "/usr/bin/containerd-shim-runc-v2"

// foreign runs a task under the stock shim, which speaks version 2, and hands
// it to f between its creation and its start.
func (d *daemon) foreign(id string, c *task, u uris, f func()) (status uint32) {
	d.t.Helper()
	log := filepath.Join(c.bundle, "log")
	if err := unix.Mkfifo(log, 0o600); err != nil {
		d.t.Fatal(err)
	}
	reader, err := os.OpenFile(log, os.O_RDWR, 0) // it will not start without a reader
	if err != nil {
		d.t.Fatal(err)
	}
	defer reader.Close()
	cmd := c.command("start")
	cmd.Path, cmd.Args[0] = foreignShim, foreignShim
	out := cmd.output()
	conn, err := net.Dial("unix", strings.TrimPrefix(out, "unix://"))
	if err != nil {
		d.t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	tasks := taskv2.NewTTRPCTaskClient(client)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	_, err = tasks.Create(ctx, &taskv2.CreateTaskRequest{
		ID: id, Bundle: c.bundle, Rootfs: c.rootfs, Options: runtimeOptions(d.t, "/usr/sbin/runc"),
		Stdin: u.stdin, Stdout: u.stdout, Stderr: u.stderr, Terminal: u.tty,
	})
	if err != nil {
		d.t.Fatal(err)
	}
	f()
	if _, err := tasks.Start(ctx, &taskv2.StartRequest{ID: id}); err != nil {
		d.t.Fatal(err)
	}
	r, err := tasks.Wait(ctx, &taskv2.WaitRequest{ID: id})
	if err != nil {
		d.t.Fatal(err)
	}
	shim, err := tasks.Connect(ctx, &taskv2.ConnectRequest{ID: id})
	if err != nil {
		d.t.Fatal(err)
	}
	if _, err := tasks.Delete(ctx, &taskv2.DeleteRequest{ID: id}); err != nil {
		d.t.Fatal(err)
	}
	tasks.Shutdown(ctx, &taskv2.ShutdownRequest{ID: id})
	gone(d.t, int(shim.ShimPid))
	return r.ExitStatus
}

func TestAForeignShimRunsOurLogger(t *testing.T) {
	d := newDaemon(t)
	// What the first process leaves behind holds its streams: the shim ends
	// the logger by a signal then.
	c := d.prepare("one", spec("sh", "-c", "seq 1 20000; echo err >&2; printf end; sleep 1000 & exit 4"))
	l := d.logger("one", nil)
	var seen *stdio.Conn
	status := d.foreign("one", c, uris{stdout: l.URI(), stderr: l.URI()}, func() {
		seen = d.attach(l, stdio.Hello{Stdout: true, Stderr: true})
	})
	defer seen.Close()
	if status != 4 {
		t.Errorf("exit status is %d", status)
	}
	var want strings.Builder
	for i := range 20000 {
		fmt.Fprintln(&want, i+1)
	}
	want.WriteString("end")
	got, err := demux(seen)
	if err != nil || got[1].String() != want.String() || got[2].String() != "err\n" {
		t.Errorf("the client got %d and %d bytes, %v", got[1].Len(), got[2].Len(), err)
	}
	eventually(t, "the logger ends", func() bool { _, err := os.Lstat(l.Attach); return err != nil })
	if got := logged(t, l.Log, "stdout"); got != want.String() {
		t.Errorf("stdout has %d bytes, want %d", len(got), want.Len())
	}
	if got := logged(t, l.Log, "stderr"); got != "err\n" {
		t.Errorf("stderr is %q", got)
	}
}

func TestALoggerOnFifosGivesAForeignShimStdin(t *testing.T) {
	d := newDaemon(t)
	c := d.prepare("one", spec("sh", "-c", "read a; echo got $a; echo err >&2"))
	l := d.logger("one", func(l *stdio.Logger) {
		l.Stdin = true
		l.Fifos = stdio.Fifos{Stdin: d.fifo("0"), Stdout: d.fifo("1"), Stderr: d.fifo("2")}
	})
	if out, err := exec.Command(l.Binary, l.Args()...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	conn := d.attach(l, stdio.Hello{Stdin: true, Stdout: true, Stderr: true, CloseStdin: true})
	defer conn.Close()
	status := d.foreign("one", c, uris{stdin: l.Fifos.Stdin, stdout: l.Fifos.Stdout, stderr: l.Fifos.Stderr}, func() {
		fmt.Fprintln(conn, "hello")
	})
	if status != 0 {
		t.Errorf("exit status is %d", status)
	}
	got, err := demux(conn)
	if err != nil || got[1].String() != "got hello\n" || got[2].String() != "err\n" {
		t.Errorf("the client got %q and %q, %v", got[1].String(), got[2].String(), err)
	}
	eventually(t, "the logger ends", func() bool { _, err := os.Lstat(l.Attach); return err != nil })
	if got := logged(t, l.Log, "stdout"); got != "got hello\n" {
		t.Errorf("stdout is %q", got)
	}
}

func TestALoggerWhoseFifosAreRemovedEnds(t *testing.T) {
	d := newDaemon(t)
	l := d.logger("one", func(l *stdio.Logger) { l.Fifos = stdio.Fifos{Stdout: d.fifo("1"), Stderr: d.fifo("2")} })
	if out, err := exec.Command(l.Binary, l.Args()...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Remove(l.Fifos.Stdout); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the logger ends", func() bool { _, err := os.Lstat(l.Attach); return err != nil })
}

func TestALoggerOnFifosSaysWhatIsWrong(t *testing.T) {
	d := newDaemon(t)
	l := d.logger("one", func(l *stdio.Logger) {
		l.Fifos = stdio.Fifos{Stdout: d.fifo("1")}
		l.Log = "/no/such/dir/log"
	})
	out, err := exec.Command(l.Binary, l.Args()...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "/no/such/dir/log: no such file or directory") {
		t.Errorf("it says %q, %v", out, err)
	}
}

// foreignLogger is a logger program of somebody else's: it takes its
// descriptors, tells that it is ready, and writes files.
const foreignLogger = `#!/bin/busybox sh
echo "$CONTAINER_ID $CONTAINER_NAMESPACE $1=$2" > %[1]s/logger.args
exec 5>&-
/bin/busybox cat <&3 > %[1]s/logger.out &
/bin/busybox cat <&4 > %[1]s/logger.err
wait
`

func TestAForeignLoggerRunsUnderOurShim(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		program := filepath.Join(d.dir, "logger")
		if err := os.WriteFile(program, fmt.Appendf(nil, foreignLogger, d.dir), 0o700); err != nil {
			t.Fatal(err)
		}
		c := d.newTask("one", spec("sh", "-c", "echo out; echo err >&2"))
		uri := "binary://" + program + "?key=value"
		c.create(runtime, uris{stdout: uri, stderr: uri})
		c.run("")
		c.wait("")
		c.delete("")
		for name, want := range map[string]string{"args": "one test key=value\n", "out": "out\n", "err": "err\n"} {
			eventually(t, name, func() bool {
				got, _ := os.ReadFile(filepath.Join(d.dir, "logger."+name))
				return string(got) == want
			})
		}
	})
}

func TestALoggerThatCannotStartIsAnErrorOfCreate(t *testing.T) {
	d := newDaemon(t)
	c := d.newTask("one", spec("true"))
	for uri, want := range map[string]string{
		"binary:///no/such/logger":                        "no such file",
		"gopher://hole":                                   "gopher",
		"binary://" + binary + "?driver=smoke":            `driver "smoke"`,
		"binary://" + binary + "?log=/no/such/dir/x.log":  "/no/such/dir/x.log",
		"binary://" + binary + "?attach=/no/such/dir/sck": "/no/such/dir/sck",
	} {
		_, err := c.client.Create(c.context(), &taskv3.CreateTaskRequest{ID: c.id, Bundle: c.bundle, Rootfs: c.rootfs, Stdout: uri, Stderr: uri, Options: runtimeOptions(t, "/usr/sbin/runc")})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("with %s the error is %v", uri, err)
		}
		c.wantNothingLeft()
	}
}

func TestFastOutputIsLoggedWholeAndMemoryStaysFlat(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		const lines, line = 2_500_000, "0123456789abcdefghijklmnopqrstuvwxyzABC\n" // 100 MB
		c := d.newTask("one", spec("sh", "-c", fmt.Sprintf("yes %s | head -n %d", strings.TrimSpace(line), lines)))
		l := d.logger("one", func(l *stdio.Logger) { l.MaxSize = -1 })
		c.create(runtime, uris{stdout: l.URI(), stderr: l.URI()})
		stuck := d.attach(l, stdio.Hello{Stdout: true}) // and does not read
		defer stuck.Close()
		shim := c.shimPid()
		began := time.Now()
		c.run("")
		peak := 0
		done := make(chan uint32)
		go func() { done <- c.wait("") }()
	wait:
		for {
			select {
			case status := <-done:
				if status != 0 {
					t.Errorf("exit status is %d", status)
				}
				break wait
			case <-time.After(20 * time.Millisecond):
				peak = max(peak, residentAnon(t, shim))
			}
		}
		t.Logf("%d bytes in %v, %d kB of memory", lines*len(line), time.Since(began), peak)
		if peak > 12<<10 {
			t.Errorf("the shim had %d kB of memory", peak)
		}
		f, err := os.Open(l.Log)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		counter := &lineCounter{}
		if _, err := io.Copy(counter, f); err != nil {
			t.Fatal(err)
		}
		if counter.n != lines {
			t.Errorf("the log has %d lines, want %d", counter.n, lines)
		}
		c.delete("")
	})
}

type lineCounter struct{ n int }

func (c *lineCounter) Write(p []byte) (int, error) {
	c.n += bytes.Count(p, []byte{'\n'})
	return len(p), nil
}

// residentAnon is the memory of a process that is its own, in kB.
func residentAnon(t *testing.T, pid int) int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

func TestKubeletsRotation(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sh", "-c", "echo one; read a; echo two"))
		l := d.logger("one", func(l *stdio.Logger) { l.Driver, l.Stdin = stdio.CRI, true })
		c.create(runtime, uris{stdout: l.URI(), stderr: l.URI()})
		c.run("")
		eventually(t, "a line is in the log", func() bool { b, _ := os.ReadFile(l.Log); return len(b) > 0 })
		if err := os.Rename(l.Log, l.Log+".rotated"); err != nil {
			t.Fatal(err)
		}
		if err := stdio.Reopen(t.Context(), l.Attach); err != nil {
			t.Fatal(err)
		}
		conn := d.attach(l, stdio.Hello{Stdin: true})
		defer conn.Close()
		fmt.Fprintln(conn, "go")
		c.wait("")
		for file, want := range map[string]string{l.Log + ".rotated": " stdout F one\n", l.Log: " stdout F two\n"} {
			got, err := os.ReadFile(file)
			if err != nil || !strings.HasSuffix(string(got), want) || bytes.Count(got, []byte("\n")) != 1 {
				t.Errorf("%s has %q, %v", file, got, err)
			}
		}
		c.delete("")
	})
}

func TestAttachAgainWhileOutputGoesOn(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sh", "-c", "i=0; while read a; do echo $a; done"))
		l := d.logger("one", func(l *stdio.Logger) { l.Stdin = true })
		c.create(runtime, uris{stdout: l.URI(), stderr: l.URI()})
		c.run("")
		for i := range 50 {
			conn := d.attach(l, stdio.Hello{Stdin: true, Stdout: true})
			fmt.Fprintln(conn, i)
			want := fmt.Sprintln(i)
			b := make([]byte, stdio.FrameHeaderLen+len(want))
			if _, err := io.ReadFull(conn, b); err != nil || string(b[stdio.FrameHeaderLen:]) != want {
				t.Fatalf("attached the %d. time and read %q, %v", i+1, b, err)
			}
			conn.Close()
		}
		last := d.attach(l, stdio.Hello{Stdin: true, CloseStdin: true})
		last.CloseWrite()
		if got := c.wait(""); got != 0 {
			t.Errorf("exit status is %d", got)
		}
		last.Close()
		c.delete("")
	})
}
