package shim_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"

	"github.com/gantryd/gantry/api/stdio"
)

// logger makes the URI of our own logger for a container.
func (d *daemon) logger(id string, with func(*stdio.Logger)) stdio.Logger {
	l := stdio.Logger{
		Binary: binary,
		Driver: stdio.JSONFile,
		Log:    filepath.Join(d.dir, id+"-json.log"),
		Attach: filepath.Join(d.dir, id+".attach"),
	}
	if with != nil {
		with(&l)
	}
	return l
}

func (d *daemon) attach(l stdio.Logger, h stdio.Hello) *stdio.Conn {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	c, err := stdio.Dial(ctx, l.Attach, h)
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// demux reads frames to their end.
func demux(r io.Reader) (out [3]bytes.Buffer, err error) {
	for {
		st, n, err := stdio.ReadFrameHeader(r)
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		if _, err := io.CopyN(&out[st], r, int64(n)); err != nil {
			return out, err
		}
	}
}

// logged joins the records of one stream of a json-file.
func logged(t *testing.T, path, stream string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range bytes.Lines(data) {
		r, err := stdio.ParseRecord(line)
		if err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if r.Stream == stream {
			b.WriteString(r.Log)
		}
	}
	return b.String()
}

func TestTheLogIsWholeWhenWaitAnswers(t *testing.T) {
	for _, rt := range runtimes {
		t.Run(rt.name, func(t *testing.T) {
			d := newDaemon(t)
			c := d.newTask("log", spec("sh", "-c", "seq 1 20000; echo err >&2; printf no-newline"))
			l := d.logger("log", nil)
			c.create(rt.binary, uris{stdout: l.URI(), stderr: l.URI()})
			c.run("")
			if got := c.wait(""); got != 0 {
				t.Errorf("exit status is %d", got)
			}
			var want strings.Builder
			for i := range 20000 {
				fmt.Fprintln(&want, i+1)
			}
			want.WriteString("no-newline")
			if got := logged(t, l.Log, "stdout"); got != want.String() {
				t.Errorf("stdout has %d bytes, want %d", len(got), want.Len())
			}
			if got := logged(t, l.Log, "stderr"); got != "err\n" {
				t.Errorf("stderr is %q", got)
			}
			c.delete("")
		})
	}
}

func TestAttachCarriesStdinAndItsEnd(t *testing.T) {
	for _, rt := range runtimes {
		t.Run(rt.name, func(t *testing.T) {
			d := newDaemon(t)
			c := d.newTask("in", spec("sh", "-c", "cat; echo end >&2"))
			l := d.logger("in", func(l *stdio.Logger) { l.Stdin = true })
			c.create(rt.binary, uris{stdout: l.URI(), stderr: l.URI()})
			watcher := d.attach(l, stdio.Hello{Stdout: true})
			feeder := d.attach(l, stdio.Hello{Stdin: true, Stdout: true, Stderr: true, CloseStdin: true})
			defer watcher.Close()
			defer feeder.Close()
			c.run("")
			big := bytes.Repeat([]byte("0123456789abcde\n"), 20000)
			go func() {
				feeder.Write(big)
				feeder.CloseWrite()
			}()
			out, err := demux(feeder)
			if err != nil {
				t.Error(err)
			}
			if !bytes.Equal(out[1].Bytes(), big) || out[2].String() != "end\n" {
				t.Errorf("stdout has %d bytes, want %d; stderr is %q", out[1].Len(), len(big), out[2].String())
			}
			seen, err := demux(watcher)
			if err != nil || !bytes.Equal(seen[1].Bytes(), big) || seen[2].Len() != 0 {
				t.Errorf("the watcher got %d and %d bytes, %v", seen[1].Len(), seen[2].Len(), err)
			}
			c.wait("")
			c.delete("")
			if _, err := os.Stat(l.Attach); err == nil {
				t.Error("the attach socket is still there")
			}
		})
	}
}

func TestAClientThatDetachesLeavesStdinOpen(t *testing.T) {
	d := newDaemon(t)
	c := d.newTask("detach", spec("sh", "-c", "read a; echo got $a; read b; echo got $b"))
	l := d.logger("detach", func(l *stdio.Logger) { l.Stdin = true })
	c.create("/usr/sbin/runc", uris{stdout: l.URI(), stderr: l.URI()})
	c.run("")
	for _, word := range []string{"one", "two"} {
		conn := d.attach(l, stdio.Hello{Stdin: true, Stdout: true})
		fmt.Fprintln(conn, word)
		want := "got " + word + "\n"
		frame := make([]byte, stdio.FrameHeaderLen+len(want))
		if _, err := io.ReadFull(conn, frame); err != nil || string(frame[stdio.FrameHeaderLen:]) != want {
			t.Errorf("read %q, %v", frame, err)
		}
		conn.Close()
	}
	if got := c.wait(""); got != 0 {
		t.Errorf("exit status is %d", got)
	}
	c.delete("")
}

func TestASlowClientHoldsUpNobodyAndLosesNothing(t *testing.T) {
	d := newDaemon(t)
	const size = 32 << 20
	c := d.newTask("slow", spec("sh", "-c", "yes 0123456789abcdefghijklmnopqrstuvwxyz | head -c 33554432"))
	l := d.logger("slow", func(l *stdio.Logger) { l.Driver = stdio.None })
	c.create("/usr/sbin/runc", uris{stdout: l.URI(), stderr: l.URI()})
	slow := d.attach(l, stdio.Hello{Stdout: true})
	fast := d.attach(l, stdio.Hello{Stdout: true})
	sum := make(chan [32]byte, 1)
	go func() {
		out, _ := demux(fast)
		sum <- sha256.Sum256(out[1].Bytes())
	}()
	c.run("")
	if got := c.wait(""); got != 0 {
		t.Errorf("exit status is %d", got)
	}
	// The container goes, and its shim, as soon as the last client has all.
	c.delete("")
	if _, err := c.client.Shutdown(c.context(), &taskv3.ShutdownRequest{ID: c.id}); err != nil {
		t.Error(err)
	}
	want := <-sum
	out, err := demux(slow)
	if err != nil || out[1].Len() != size || sha256.Sum256(out[1].Bytes()) != want {
		t.Errorf("the slow client got %d bytes of %d, %v", out[1].Len(), size, err)
	}
}

func TestTheLogRotates(t *testing.T) {
	d := newDaemon(t)
	c := d.newTask("rotate", spec("seq", "1", "5000"))
	l := d.logger("rotate", func(l *stdio.Logger) { l.MaxSize, l.MaxFile = 20000, 3 })
	c.create("/usr/sbin/runc", uris{stdout: l.URI(), stderr: l.URI()})
	c.run("")
	c.wait("")
	var all string
	for _, suffix := range []string{".2", ".1", ""} {
		st, err := os.Stat(l.Log + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if st.Size() > l.MaxSize+100 {
			t.Errorf("%s has %d bytes", st.Name(), st.Size())
		}
		all += logged(t, l.Log+suffix, "stdout")
	}
	if !strings.HasSuffix(all, "\n4999\n5000\n") || strings.HasPrefix(all, "1\n") {
		t.Errorf("the files hold %q … %q", all[:20], all[len(all)-20:])
	}
	if _, err := os.Stat(l.Log + ".3"); err == nil {
		t.Error("there are more files than asked for")
	}
	c.delete("")
}

func TestATerminalIsAttachedRaw(t *testing.T) {
	for _, rt := range runtimes {
		t.Run(rt.name, func(t *testing.T) {
			d := newDaemon(t)
			s := spec("sh", "-c", "stty size; read a; echo got $a; tty")
			s.Process.Terminal = true
			c := d.newTask("tty", s)
			l := d.logger("tty", func(l *stdio.Logger) { l.Stdin, l.TTY = true, true })
			c.create(rt.binary, uris{stdout: l.URI(), tty: true})
			c.resize(40, 100)
			conn := d.attach(l, stdio.Hello{Stdin: true, Stdout: true})
			defer conn.Close()
			c.run("")
			fmt.Fprintln(conn, "hello")
			got, err := io.ReadAll(conn)
			if err != nil {
				t.Error(err)
			}
			for _, want := range []string{"40 100\r\n", "got hello\r\n", "/dev/pts/0\r\n"} {
				if !strings.Contains(string(got), want) {
					t.Errorf("the terminal said %q, want %q in it", got, want)
				}
			}
			if got := c.wait(""); got != 0 {
				t.Errorf("exit status is %d", got)
			}
			if log := logged(t, l.Log, "stdout"); log != string(got) {
				t.Errorf("the log has %q, want %q", log, got)
			}
			c.delete("")
		})
	}
}
