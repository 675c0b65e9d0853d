package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// deadline is for one command: who takes longer is broken, and the run ends.
const deadline = 3 * time.Minute

// tool is a command line with the flags that tell it where its daemon or its
// stores are.
type tool []string

// with is the tool with more arguments.
func (c tool) with(args ...string) tool { return append(c[:len(c):len(c)], args...) }

// base is the name of the program.
func (c tool) base() string { return filepath.Base(c[0]) }

// try runs the command to its end, output thrown away; what it said of an error
// is in the error.
func (c tool) try(args ...string) error { // A file and not a pipe: a container that stays would hold it open.
	fd, err := unix.MemfdCreate("stderr", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	stderr := os.NewFile(uintptr(fd), "stderr")
	defer stderr.Close()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	all := c.with(args...)
	cmd := exec.CommandContext(ctx, all[0], all[1:]...)
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		said, _ := io.ReadAll(io.NewSectionReader(stderr, 0, 8<<10))
		if ctx.Err() != nil {
			err = fmt.Errorf("still running after %v", deadline)
		}
		return fmt.Errorf("%s: %w: %s", strings.Join(all, " "), err, said)
	}
	return nil
}

func (c tool) do(tb testing.TB, args ...string) {
	tb.Helper()
	if err := c.try(args...); err != nil {
		tb.Fatal(err)
	}
}

// says runs the command and gives what it printed.
func (c tool) says(tb testing.TB, args ...string) string {
	tb.Helper()
	return c.output(tb, (*exec.Cmd).Output, args...)
}

// tells is says, with what went to stderr too.
func (c tool) tells(tb testing.TB, args ...string) string {
	tb.Helper()
	return c.output(tb, (*exec.Cmd).CombinedOutput, args...)
}

func (c tool) output(tb testing.TB, run func(*exec.Cmd) ([]byte, error), args ...string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	all := c.with(args...)
	out, err := run(exec.CommandContext(ctx, all[0], all[1:]...))
	if err != nil {
		tb.Fatalf("%s: %v: %s", strings.Join(all, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// as is a contender that runs one command.
func (c tool) as(name string, args ...string) contender {
	return contender{name: name, run: func() error { return c.try(args...) }}
}

// atATime does something n times, so many at a time; the first error ends it.
func atATime(many, n int, do func(int) error) error {
	var next, bad atomic.Int64
	var first error
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && bad.Load() == 0; i = next.Add(1) - 1 {
				if err := do(int(i)); err != nil && bad.Add(1) == 1 {
					first = err
				}
			}
		})
	}
	wg.Wait()
	return first
}
