// Package rig is the ground on which tests and benchmarks of whole programs
// stand: the built programs, test hosts (network namespaces), daemons of ours and
// of strangers in directories of their own, images made from Debian packages, and
// the check that nothing is left behind.
package rig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Root is the top of the source tree.
var Root = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	return strings.TrimSpace(string(out)), err
})

// build builds the programs, unless GANTRY_BIN says where built ones are.
var build = sync.OnceValues(func() (string, error) {
	if dir := os.Getenv("GANTRY_BIN"); dir != "" {
		return dir, nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "grpcnotrace", "-ldflags", "-s -w", "-o", "bin/", "./cmd/...")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w: %s", err, out)
	}
	bin := filepath.Join(root, "bin")
	return bin, copied(bin)
})

// copied puts copies in the place of the programs, as 'make build' and any package
// manager do: the linker writes by mmap, and what it wrote starts more slowly. A
// copy written with one call would lie in folios of 2 MB, of which the first touch
// maps all: RSS of a daemon would be the size of its file.
func copied(bin string) error {
	entries, err := os.ReadDir(bin)
	if err != nil {
		return err
	}
	for _, e := range entries {
		file := filepath.Join(bin, e.Name())
		if out, err := exec.Command("cp", file, file+".copy").CombinedOutput(); err != nil {
			return fmt.Errorf("copy the programs: %w: %s", err, out)
		}
		if err := os.Rename(file+".copy", file); err != nil {
			return err
		}
	}
	return nil
}

// Bin is the directory of the built programs; the first call builds them.
func Bin(t testing.TB) string {
	t.Helper()
	dir, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Program is the path of one of our programs.
func Program(t testing.TB, name string) string {
	t.Helper()
	return filepath.Join(Bin(t), name)
}

// Peer is the path of a stranger's program; it is a failure, not a skip, when it
// is not installed, since 'make deps' installs all of them.
func Peer(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed; run 'make deps'", name)
	return ""
}

// Dir is a temporary directory. It is removed at the end without following what
// is mounted in it.
func Dir(t testing.TB) string {
	t.Helper()
	return dirIn(t, os.TempDir())
}

// runDir is the same on the tmpfs of /run, where daemons keep their state.
func runDir(t testing.TB) string {
	t.Helper()
	return dirIn(t, "/run")
}

func dirIn(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "gt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeTree(dir); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return dir
}

// removeTree takes dir away unless something is mounted below it: that is a leak,
// and removing through it would eat what is mounted.
func removeTree(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 4 && strings.HasPrefix(f[4], dir+"/") {
			return fmt.Errorf("still mounted: %s", f[4])
		}
	}
	return os.RemoveAll(dir)
}

// Result is what a program that ran to its end said.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Run runs a command to its end, or fails the test when that takes too long.
func Run(t testing.TB, cmd *exec.Cmd) Result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	timer := time.AfterFunc(3*patience, func() {
		t.Errorf("%s: still running after %v", cmd, 3*patience)
		cmd.Process.Kill()
	})
	defer timer.Stop()
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("%s: %v", cmd, err)
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Must is Run for a command that has to succeed; it returns what was printed.
func Must(t testing.TB, cmd *exec.Cmd) string {
	t.Helper()
	r := Run(t, cmd)
	if r.Code != 0 {
		t.Fatalf("%s: exit code %d\n%s%s", cmd, r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

// Process is a daemon that a test started.
type Process struct {
	t    testing.TB
	Cmd  *exec.Cmd
	Log  string // file with everything it printed
	done chan struct{}
}

// Start starts a daemon and ends it at the end of the test.
func Start(t testing.TB, log string, cmd *exec.Cmd) *Process {
	t.Helper()
	p := launch(t, log, cmd)
	t.Cleanup(p.end)
	return p
}

// launch starts a daemon that somebody else ends.
func launch(t testing.TB, log string, cmd *exec.Cmd) *Process {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	p := &Process{t: t, Cmd: cmd, Log: log, done: make(chan struct{})}
	go func() {
		cmd.Wait()
		close(p.done)
	}()
	return p
}

// end stops the daemon; what it printed is shown when the test failed.
func (p *Process) end() {
	if p == nil {
		return // it was never started: its program does not build
	}
	p.Stop()
	if p.t.Failed() {
		p.showLog()
	}
}

func (p *Process) showLog() {
	data, _ := os.ReadFile(p.Log)
	if limit := 8 << 10; len(data) > limit {
		data = data[len(data)-limit:]
	}
	p.t.Logf("%s said:\n%s", filepath.Base(p.Log), data)
}

// Stop ends the daemon politely and waits for it.
func (p *Process) Stop() {
	p.Cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Errorf("%s: does not end on SIGTERM", p.Cmd)
		p.Kill()
	}
}

// Kill is kill -9, and waits.
func (p *Process) Kill() {
	p.Cmd.Process.Kill()
	<-p.done
}

// Ended says whether the daemon is gone.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// patience is for how long a condition is waited for: long, since it is spent only
// where a test fails, and the machine may be busy.
const patience = time.Minute

// Eventually waits for a condition and fails the test with what it last said.
func Eventually(t testing.TB, condition func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		err := condition()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", patience, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
