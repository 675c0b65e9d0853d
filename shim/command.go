package shim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/api/journey"
)

// command is any OCI runtime by its command line, as runc has it and others do.
type command struct {
	record
	bundle string
	reaper *reaper
}

func (c *command) create(e ends) (*started, error) {
	args := []string{"--bundle", c.bundle}
	if c.NoPivot {
		args = append(args, "--no-pivot")
	}
	if c.NoNewKeyring {
		args = append(args, "--no-new-keyring")
	}
	return c.spawn("create", args, e)
}

func (c *command) exec(p *specs.Process, e ends) (_ *started, err error) {
	spec, err := os.CreateTemp(c.bundle, "process.*.json")
	if err != nil {
		return nil, err
	}
	defer os.Remove(spec.Name())
	defer spec.Close()
	if err := json.NewEncoder(spec).Encode(p); err != nil {
		return nil, fmt.Errorf("write process of %s: %w", c.ID, err)
	}
	return c.spawn("exec", []string{"--detach", "--process", spec.Name()}, e)
}

// spawn runs verb, which leaves a process with the streams e behind; once the
// runtime has ended that process is our child.
func (c *command) spawn(verb string, args []string, e ends) (_ *started, err error) {
	dir, err := os.MkdirTemp("", "gantry-shim-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	pids := filepath.Join(dir, "pid")
	if verb != "exec" {
		pids = filepath.Join(c.bundle, pidFile) // where runtimes that are wrapped look for it
	}
	args = append(args, "--pid-file", pids)
	var con *consoleSocket
	if e.terminal {
		if con, err = listenConsole(filepath.Join(dir, "console")); err != nil {
			return nil, err
		}
		defer con.close()
		args = append(args, "--console-socket", con.path)
	}
	if err := c.run(verb, append(args, c.ID), e, nil); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(pids)
	if err != nil {
		return nil, fmt.Errorf("read pid of %s: %w", c.ID, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, fmt.Errorf("read pid of %s: %w", c.ID, err)
	}
	p := &started{pid: pid}
	if con == nil {
		return p, nil
	}
	if p.console, err = con.receive(); err == nil {
		return p, nil
	}
	if verb != "exec" {
		return nil, errors.Join(err, c.delete(true))
	}
	return nil, errors.Join(err, unix.Kill(pid, unix.SIGKILL)) // the reaper is held, so pid is its own
}

func (c *command) start() error { return c.run("start", []string{c.ID}, ends{}, nil) }

func (c *command) kill(sig int, all bool) error {
	args := []string{c.ID, strconv.Itoa(sig)}
	if all {
		args = slices.Insert(args, 0, "--all")
	}
	return c.run("kill", args, ends{}, nil)
}

func (c *command) pids() ([]int, error) {
	var out bytes.Buffer
	if err := c.run("ps", []string{"--format", "json", c.ID}, ends{}, &out); err != nil {
		return nil, err
	}
	var pids []int
	if err := json.Unmarshal(out.Bytes(), &pids); err != nil {
		return nil, fmt.Errorf("parse pids of %s: %w", c.ID, err)
	}
	return pids, nil
}

func (c *command) pause() error { return c.run("pause", []string{c.ID}, ends{}, nil) }

func (c *command) resume() error { return c.run("resume", []string{c.ID}, ends{}, nil) }

func (c *command) update(resources []byte) error {
	f, err := os.CreateTemp(c.bundle, "resources.*.json")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(resources); err != nil {
		return fmt.Errorf("write resources of %s: %w", c.ID, err)
	}
	return c.run("update", []string{"--resources", f.Name(), c.ID}, ends{}, nil)
}

func (c *command) delete(force bool) error {
	if force {
		return c.run("delete", []string{"--force", c.ID}, ends{}, nil)
	}
	return c.run("delete", []string{c.ID}, ends{}, nil)
}

func (c *command) rest() {}

func (c *command) spans() []journey.Span { return nil }

// run runs one command of the runtime and waits for it. What the runtime logs is
// the error. With out nil the streams are e; else stdout goes to out.
func (c *command) run(verb string, args []string, e ends, out *bytes.Buffer) error {
	logFile := filepath.Join(c.bundle, "runtime-log.json")
	defer os.Remove(logFile)
	global := []string{"--root", c.Root, "--log", logFile, "--log-format", "json"}
	if c.SystemdCgroup {
		global = append(global, "--systemd-cgroup")
	}
	cmd := exec.Command(c.Binary, slices.Concat(global, []string{verb}, args)...)
	cmd.Env = environ()
	cmd.Dir = c.bundle
	if e.in != nil {
		cmd.Stdin = e.in
	}
	var said bytes.Buffer
	switch {
	case out != nil:
		cmd.Stdout = out
	case e.out != nil:
		cmd.Stdout = e.out
	}
	// A runtime that ends leaves its stderr to the container, so it cannot be a
	// pipe of ours where the container has one, or none, of its own.
	if verb == "create" || verb == "exec" {
		if e.err != nil {
			cmd.Stderr = e.err
		}
	} else {
		cmd.Stderr = &said
	}

	c.reaper.hold()
	defer c.reaper.release()
	if err := cmd.Run(); err != nil {
		return c.explain(verb, err, logFile, said.String())
	}
	return nil
}

// explain says why the runtime did not do verb: in its log's last words.
func (c *command) explain(verb string, err error, logFile, said string) error {
	text := lastError(logFile)
	if text == "" {
		text = strings.TrimSpace(said)
	}
	if text == "" {
		text = err.Error()
	}
	err = fmt.Errorf("%s %s %s: %s", filepath.Base(c.Binary), verb, c.ID, text)
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case verb == "kill" && (strings.Contains(text, "not running") || strings.Contains(text, "process already finished") || strings.Contains(text, "No such process")):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	case strings.Contains(text, "does not exist") && (verb == "delete" || verb == "kill"):
		return fmt.Errorf("%w: %w", err, errdefs.ErrNotFound)
	}
	return err
}

// lastError is the last error in a runtime's JSON log.
func lastError(logFile string) string {
	f, err := os.Open(logFile)
	if err != nil {
		return ""
	}
	defer f.Close()
	last := ""
	for dec := json.NewDecoder(io.LimitReader(f, 1<<20)); ; {
		var line struct{ Level, Msg string }
		if err := dec.Decode(&line); err != nil {
			return last
		}
		if line.Level == "error" {
			last = line.Msg
		}
	}
}

// environ is our environment without what is for this process alone: of a
// variable that is there twice the first counts.
func environ() []string {
	return slices.DeleteFunc(os.Environ(), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return key == "GOMAXPROCS" || key == "TTRPC_ADDRESS" || key == "NOTIFY_SOCKET"
	})
}
