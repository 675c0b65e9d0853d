package shims

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOneGoroutineReadsAllDescriptors(t *testing.T) {
	p := newTestPoller(t)
	before := runtime.NumGoroutine()
	const many = 100
	heard := make(chan int, many)
	var pipes [many]*os.File
	for i := range pipes {
		fd, w := pipe(t)
		pipes[i] = w
		_, err := p.watch(fd, func(fd int) (more bool) {
			n, err := unix.Read(fd, make([]byte, 1))
			if n == 1 {
				heard <- i
			}
			return n == 1 || errors.Is(err, unix.EAGAIN)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines were started for %d descriptors", n-before, many)
	}
	for range 3 {
		var got []int
		for _, w := range pipes {
			write(t, w, "x")
		}
		for range pipes {
			got = append(got, <-heard)
		}
		slices.Sort(got)
		if got = slices.Compact(got); len(got) != many {
			t.Errorf("%d of %d were read", len(got), many)
		}
	}
	for _, w := range pipes {
		w.Close()
	}
	eventually(t, "what has come to its end is watched", func() bool { return watching(p) == 0 })
}

func TestAWatchThatEndedIsNotReadAndItsDescriptorIsClosed(t *testing.T) {
	p := newTestPoller(t)
	fd, w := pipe(t)
	reading, goOn := make(chan struct{}, 1), make(chan struct{})
	var isOver, readAfter atomic.Bool
	watch, err := p.watch(fd, func(int) (more bool) {
		readAfter.Store(isOver.Load())
		select {
		case reading <- struct{}{}:
		default:
		}
		<-goOn
		return true // it can still be read
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, "x")
	<-reading
	var ended sync.WaitGroup
	for range 2 {
		ended.Go(watch.end)
	}
	close(goOn)
	ended.Wait()
	isOver.Store(true)
	if _, err := w.Write([]byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("write to a watch that ended: %v, want EPIPE", err)
	}
	if n := watching(p); n != 0 || readAfter.Load() {
		t.Errorf("%d watches, read after the end: %v; want none", n, readAfter.Load())
	}
}

func TestAPollerEndsWithTheLastThatItWatches(t *testing.T) {
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	fd, w := pipe(t)
	if _, err := p.watch(fd, func(int) (more bool) { return false }); err != nil {
		t.Fatal(err)
	}
	p.close()
	if err := p.control(func(int) error { return nil }); err != nil {
		t.Errorf("it ended before what it watches: %v", err)
	}
	w.Close()
	eventually(t, "it goes on", func() bool { return p.control(func(int) error { return nil }) != nil })
	fd, _ = pipe(t)
	if _, err := p.watch(fd, func(int) (more bool) { return true }); err == nil || watching(p) != 0 {
		t.Errorf("watch after the end: %v with %d watches, want an error and none", err, watching(p))
	}
}

func TestLinesOfAShimArePassedOnWhole(t *testing.T) {
	var said bytes.Buffer
	task := &Task{Namespace: "ns", ID: "id", table: &Table{cfg: Config{Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelDebug}))}}}
	for _, c := range []struct {
		name string
		text string
		want []string // of the log
		rest string
	}{
		{"a line and the beginning of another", "one\ntw", []string{`level=DEBUG msg=one namespace=ns shim=id`}, "tw"},
		{"empty lines are nothing", "\n \n", nil, ""},
		{"warnings are", "level=warning msg=x\npanic: y\n", []string{`level=WARN msg="level=warning msg=x"`, `level=WARN msg="panic: y"`}, ""},
		{"a line without end is not waited for", strings.Repeat("z", longestLine), []string{"level=DEBUG msg=z"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			said.Reset()
			if rest := task.passLines([]byte(c.text)); string(rest) != c.rest {
				t.Errorf("left: %q, want %q", rest, c.rest)
			}
			got := slices.Collect(strings.Lines(said.String()))
			if len(got) != len(c.want) {
				t.Fatalf("log: %q, want %d lines", got, len(c.want))
			}
			for i, want := range c.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("log: %q, want %q", got[i], want)
				}
			}
		})
	}
}

func TestAShimThatEndsIsReaped(t *testing.T) {
	p := newTestPoller(t)
	dir := t.TempDir()
	script := filepath.Join(dir, "shim")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nread go\necho $$\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	in, goOn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	said, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	table := &Table{poller: p}
	if err := table.spawn(key{"ns", "id"}, script, dir, []*os.File{in, out, nil}); err != nil {
		t.Fatal(err)
	}
	in.Close()
	out.Close()
	if n := watching(p); n != 1 {
		t.Errorf("%d processes are watched, want 1", n)
	}
	goOn.Close()
	pid, err := io.ReadAll(said)
	if err != nil {
		t.Fatal(err)
	}
	proc := filepath.Join("/proc", strings.TrimSpace(string(pid)))
	eventually(t, proc+" is there", func() bool {
		_, err := os.Stat(proc)
		return errors.Is(err, os.ErrNotExist)
	})
	eventually(t, "it is watched", func() bool { return watching(p) == 0 })
}

func newTestPoller(t *testing.T) *poller {
	t.Helper()
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.close)
	return p
}

// pipe is one whose reading end does not block; who gets it closes it.
func pipe(t *testing.T) (fd int, w *os.File) {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	w = os.NewFile(uintptr(fds[1]), "pipe")
	t.Cleanup(func() { w.Close() })
	return fds[0], w
}

func write(t *testing.T, w *os.File, text string) {
	t.Helper()
	if _, err := w.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func watching(p *poller) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.watched)
}

func eventually(t *testing.T, still string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after a minute, %s", still)
		}
	}
}
