package attach

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/shim/internal/stream"
)

// listen serves an attach socket; at the end of the test no goroutine and no
// descriptor of it may be left.
func listen(t *testing.T, cfg Config) (*Server, string) {
	t.Helper()
	goroutines, descriptors := runtime.NumGoroutine(), openFiles(t)
	cfg.Path = filepath.Join(t.TempDir(), "attach")
	if cfg.Spill == "" {
		cfg.Spill = t.TempDir()
	}
	s, err := Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.End()
		s.Wait()
		for range 200 {
			if runtime.NumGoroutine() <= goroutines && openFiles(t) <= descriptors {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%d goroutines and %d descriptors, before %d and %d", runtime.NumGoroutine(), openFiles(t), goroutines, descriptors)
	})
	return s, cfg.Path
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func dial(t *testing.T, path string, h stdio.Hello) *stdio.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	c, err := stdio.Dial(ctx, path, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// frames reads to the end and joins what each stream carried.
func frames(t *testing.T, r io.Reader) (out [3]string) {
	t.Helper()
	var b [3]bytes.Buffer
	for {
		st, n, err := stdio.ReadFrameHeader(r)
		if err == io.EOF {
			return [3]string{b[0].String(), b[1].String(), b[2].String()}
		}
		if err == nil {
			_, err = io.CopyN(&b[st], r, int64(n))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestEveryClientGetsWhatItAskedFor(t *testing.T) {
	s, path := listen(t, Config{})
	both := dial(t, path, stdio.Hello{Stdout: true, Stderr: true})
	onlyErr := dial(t, path, stdio.Hello{Stderr: true})
	s.Write(stdio.Stdout, []byte("o1 "))
	late := dial(t, path, stdio.Hello{Stdout: true})
	s.Write(stdio.Stderr, []byte("e1"))
	s.Write(stdio.Stdout, []byte("o2"))
	s.End()
	for _, row := range []struct {
		name string
		c    *stdio.Conn
		want [3]string
	}{
		{"both", both, [3]string{"", "o1 o2", "e1"}},
		{"stderr only", onlyErr, [3]string{"", "", "e1"}},
		{"one that came later", late, [3]string{"", "o2", ""}},
	} {
		if got := frames(t, row.c); got != row.want {
			t.Errorf("%s: got %q, want %q", row.name, got, row.want)
		}
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there")
	}
}

func TestASlowClientLosesNothingAndCostsNoMemory(t *testing.T) {
	s, path := listen(t, Config{})
	slow := dial(t, path, stdio.Hello{Stdout: true})
	const total = 64 << 20
	block := bytes.Repeat([]byte("0123456789abcdef"), 64<<10/16)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	began := time.Now()
	for range total / len(block) {
		s.Write(stdio.Stdout, block)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the container waited %v", took)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	s.End()
	want := strings.Repeat(string(block), total/len(block))
	if got := frames(t, slow); got[1] != want {
		t.Errorf("got %d bytes, want %d", len(got[1]), len(want))
	}
}

func TestWhatAClientHasReadIsGivenBackToTheDisk(t *testing.T) {
	s, path := listen(t, Config{TTY: true})
	slow := dial(t, path, stdio.Hello{Stdout: true})
	block := make([]byte, 1<<20)
	buf := make([]byte, len(block))
	for range 16 { // 16 MB behind
		s.Write(stdio.Stdout, block)
	}
	for range 64 { // and stays so
		s.Write(stdio.Stdout, block)
		if _, err := io.ReadFull(slow, buf); err != nil {
			t.Fatal(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.clients {
		c.mu.Lock()
		var st unix.Stat_t
		if err := unix.Fstat(int(c.file.Fd()), &st); err != nil {
			t.Fatal(err)
		}
		c.mu.Unlock()
		if used := st.Blocks * 512; used > 24<<20 {
			t.Errorf("the file takes %d bytes for 16 MB that wait", used)
		}
	}
}

func TestAClientThatGoesIsForgotten(t *testing.T) {
	s, path := listen(t, Config{})
	slow := dial(t, path, stdio.Hello{Stdout: true})
	for range 64 {
		s.Write(stdio.Stdout, make([]byte, 64<<10))
	}
	slow.Close()
	quiet := dial(t, path, stdio.Hello{})
	quiet.Close()
	for range 200 {
		s.mu.Lock()
		n := len(s.clients)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("a client is still counted")
}

func TestStdinFromSeveralClients(t *testing.T) {
	in, theirs, err := stream.InPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	_, path := listen(t, Config{Stdin: in})
	first := dial(t, path, stdio.Hello{Stdin: true})
	fmt.Fprint(first, "one ")
	first.CloseWrite() // without CloseStdin: only this client's input ends
	got := make([]byte, 4)
	if _, err := io.ReadFull(theirs, got); err != nil || string(got) != "one " {
		t.Fatalf("read %q, %v", got, err)
	}
	second := dial(t, path, stdio.Hello{Stdin: true, CloseStdin: true})
	fmt.Fprint(second, "two")
	second.CloseWrite()
	rest, err := io.ReadAll(theirs)
	if err != nil || string(rest) != "two" {
		t.Errorf("read %q, %v", rest, err)
	}
}

func TestOutputGoesOnAfterStdinsEnd(t *testing.T) {
	in, theirs, err := stream.InPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	s, path := listen(t, Config{Stdin: in})
	c := dial(t, path, stdio.Hello{Stdin: true, Stdout: true, CloseStdin: true})
	c.CloseWrite()
	if b, err := io.ReadAll(theirs); err != nil || len(b) != 0 {
		t.Fatalf("read %q, %v", b, err)
	}
	s.Write(stdio.Stdout, []byte("still here"))
	s.End()
	if got := frames(t, c); got[1] != "still here" {
		t.Errorf("got %q", got)
	}
}

func TestAContainerThatDoesNotReadMakesOnlyItsClientWait(t *testing.T) {
	in, theirs, err := stream.InPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	s, path := listen(t, Config{Stdin: in})
	c := dial(t, path, stdio.Hello{Stdin: true, Stdout: true})
	c.SetDeadline(time.Now().Add(200 * time.Millisecond))
	if _, err := c.Write(make([]byte, 8<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("8 MB that nobody reads are taken: %v", err)
	}
	c.SetDeadline(time.Time{})
	other := dial(t, path, stdio.Hello{Stdout: true})
	s.Write(stdio.Stdout, []byte("on"))
	s.End()
	if got := frames(t, other); got[1] != "on" {
		t.Errorf("got %q", got)
	}
}

func TestAHelloThatIsNoneIsRefused(t *testing.T) {
	_, path := listen(t, Config{})
	for _, hello := range []string{"GET / HTTP/1.1\r\n", strings.Repeat("x", 5000)} {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), path)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
		f.WriteString(hello)
		answer := make([]byte, 6)
		if _, err := io.ReadFull(f, answer); err != nil || string(answer) != "error " {
			t.Errorf("the answer to %.10q is %q, %v", hello, answer, err)
		}
		f.Close()
	}
}

func TestReopenAnswersWhenItIsDone(t *testing.T) {
	var answer error
	calls := 0
	_, path := listen(t, Config{Reopen: func() error { calls++; return answer }})
	if err := stdio.Reopen(t.Context(), path); err != nil || calls != 1 {
		t.Errorf("%d calls, %v", calls, err)
	}
	answer = errors.New("disk is on fire")
	if err := stdio.Reopen(t.Context(), path); err == nil || !strings.Contains(err.Error(), "disk is on fire") {
		t.Errorf("the error is %v", err)
	}
}
