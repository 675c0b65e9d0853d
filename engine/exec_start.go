package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	eventsapi "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/internal/errs"
)

// lingerTime is how long the streams of a process are read after its exit: a
// child of it may hold them open for ever.
const lingerTime = 2 * time.Second

// postStart is POST /exec/{id}/start.
func (x *execs) postStart(w http.ResponseWriter, r *http.Request) error {
	e, err := x.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	var req container.ExecStartRequest
	if r.ContentLength != 0 {
		if err := readJSON(r, &req); err != nil {
			return err
		}
	}
	if req.ConsoleSize != nil {
		e.size = *req.ConsoleSize
	}
	if err := e.begin(); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	if req.Detach {
		p, err := x.start(ctx, e, execIO{})
		if err != nil {
			return err
		}
		x.containers.goroutine(func(context.Context) { p.finish(ctx) })
		w.WriteHeader(http.StatusOK)
		return nil
	}
	h, err := hijack(w, r, e.wish.Tty)
	if err != nil {
		return err
	}
	defer h.conn.Close()
	x.attached(ctx, e, h)
	return errStreamed
}

// begin takes the one start that an execution has.
func (e *execution) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.code != nil:
		return conflict("exec command %s has already run", e.id)
	case e.began:
		return conflict("exec command %s is already running", e.id)
	}
	if err := runs(e.k); err != nil {
		return err
	}
	e.began = true
	return nil
}

// attached runs e with its streams on the client's connection.
func (x *execs) attached(ctx context.Context, e *execution, h *hijacked) {
	out := &framed{w: h.conn, raw: e.wish.Tty}
	streams := execIO{stdin: h.in}
	if e.wish.AttachStdout {
		streams.stdout = out.stream(stdio.Stdout)
	}
	if e.wish.AttachStderr && !e.wish.Tty {
		streams.stderr = out.stream(stdio.Stderr)
	}
	if !e.wish.AttachStdin {
		streams.stdin = nil
	}
	detached := make(chan struct{})
	if e.wish.Tty && streams.stdin != nil {
		keys, err := parseDetachKeys(e.wish.DetachKeys)
		if err != nil {
			return
		}
		streams.stdin = &onDetach{r: &detachReader{r: h.in, keys: keys}, detached: detached}
	}
	p, err := x.start(ctx, e, streams)
	if err != nil {
		fmt.Fprintf(out.stream(stdio.Stdout), "%s\r\n", err)
		return
	}
	done := make(chan struct{})
	x.containers.goroutine(func(context.Context) {
		p.finish(ctx)
		close(done)
	})
	select {
	case <-done:
		h.closeWrite()
	case <-detached:
		x.containers.publish(e.k, eventsapi.ActionExecDetach, map[string]string{"execID": e.id})
	}
}

// onDetach closes detached when the keys were typed.
type onDetach struct {
	r        io.Reader
	detached chan struct{}
}

func (d *onDetach) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if errors.Is(err, errDetached) {
		close(d.detached)
	}
	return n, err
}

// framed writes several streams to one connection.
type framed struct {
	mu  sync.Mutex
	w   io.Writer
	raw bool // a terminal has one stream, and no frames
}

type framedStream struct {
	f      *framed
	stream byte
}

func (f *framed) stream(n byte) io.Writer { return framedStream{f, n} }

func (s framedStream) Write(p []byte) (int, error) {
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	if !s.f.raw {
		h := stdio.FrameHeader(s.stream, len(p))
		if _, err := s.f.w.Write(append(h[:], p...)); err != nil {
			return 0, err
		}
		return len(p), nil
	}
	return s.f.w.Write(p)
}

// execIO is where the streams of a process go; nil is nowhere.
type execIO struct {
	stdin          io.Reader
	stdout, stderr io.Writer
}

// process is an execution that runs.
type process struct {
	x      *execs
	e      *execution
	fifos  *fifos
	exited chan exitStatus
	output sync.WaitGroup
}

type exitStatus struct {
	code int
	err  error
}

// start starts e, or leaves nothing behind.
func (x *execs) start(ctx context.Context, e *execution, streams execIO) (_ *process, err error) {
	c := x.containers
	defer errs.Undo(&err, func() error { e.end(execExitCode(err)); return nil })
	life := e.k.live()
	if life == nil {
		return nil, conflict("container %s is not running", e.k.id)
	}
	spec, err := x.spec(e, life.pid)
	if err != nil {
		return nil, err
	}
	f, err := makeFifos(filepath.Join(c.cfg.State, "fifo", e.id), streams)
	if err != nil {
		return nil, err
	}
	defer errs.Undo(&err, f.remove)
	p := &process{x: x, e: e, fifos: f, exited: make(chan exitStatus, 1)}
	_, err = c.ctrd.Tasks.Exec(ctx, &tasksapi.ExecProcessRequest{
		ContainerID: e.k.id, ExecID: e.id, Terminal: e.wish.Tty, Spec: spec,
		Stdin: f.path(0), Stdout: f.path(1), Stderr: f.path(2),
	})
	if err != nil {
		return nil, explainStart(err)
	}
	defer errs.Undo(&err, func() error { return p.delete(ctx) })
	c.publish(e.k, eventsapi.ActionExecStart+eventsapi.Action(": "+strings.Join(e.wish.Cmd, " ")), map[string]string{"execID": e.id})
	p.copyOutput(streams)
	resp, err := c.ctrd.Tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: e.k.id, ExecID: e.id})
	if err != nil {
		return nil, explainStart(err)
	}
	e.run(int(resp.Pid))
	f.handOver()
	p.copyInput(ctx, streams)
	c.goroutine(p.wait)
	return p, nil
}

// execExitCode is that of an exec that could not be started.
func execExitCode(err error) int {
	if code := startExitCode(err); code == exitNotFound {
		return code
	}
	return exitNotExecutable
}

func (e *execution) run(pid int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.pid = true, pid
	close(e.started)
}

func (e *execution) end(code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.running, e.code, e.over = false, &code, time.Now()
}

// wait waits for the exit, which finish reads.
func (p *process) wait(ctx context.Context) {
	resp, err := p.x.containers.ctrd.Tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: p.e.k.id, ExecID: p.e.id})
	if err != nil {
		p.exited <- exitStatus{exitUnknown, err}
		return
	}
	p.exited <- exitStatus{int(resp.ExitStatus), nil}
}

// finish waits for the exit and the last output, and takes the process away.
func (p *process) finish(ctx context.Context) int {
	status := <-p.exited
	copied := make(chan struct{})
	go func() { p.output.Wait(); close(copied) }()
	select {
	case <-copied:
	case <-time.After(lingerTime):
	}
	p.e.end(status.code)
	log := p.x.containers.cfg.Log.With("container", p.e.k.id, "exec", p.e.id)
	if status.err != nil {
		log.Warn("exit is not known", "err", status.err)
	}
	p.x.containers.publish(p.e.k, eventsapi.ActionExecDie, map[string]string{"execID": p.e.id, "exitCode": strconv.Itoa(status.code)})
	// The client need not wait for the rest.
	p.x.containers.goroutine(func(context.Context) {
		if err := errors.Join(p.delete(ctx), p.fifos.remove()); err != nil {
			log.Warn("exec is left", "err", err)
		}
	})
	return status.code
}

func (p *process) delete(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killTime)
	defer cancel()
	_, err := p.x.containers.ctrd.Tasks.DeleteProcess(ctx, &tasksapi.DeleteProcessRequest{ContainerID: p.e.k.id, ExecID: p.e.id})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete exec %s: %w", p.e.id, err)
	}
	return nil
}

// copyOutput copies until the process has closed its streams.
func (p *process) copyOutput(streams execIO) {
	for i, w := range []io.Writer{1: streams.stdout, 2: streams.stderr} {
		if w == nil {
			continue
		}
		p.output.Go(func() {
			if _, err := io.Copy(w, p.fifos.ends[i]); err != nil {
				// The client has gone; the process must not stop for that.
				io.Copy(io.Discard, p.fifos.ends[i])
			}
		})
	}
}

// copyInput copies what the client types, and closes stdin at its end.
func (p *process) copyInput(ctx context.Context, streams execIO) {
	if streams.stdin == nil {
		return
	}
	go func() {
		if _, err := io.Copy(p.fifos.ends[0], streams.stdin); errors.Is(err, errDetached) {
			return // a client that detaches is no end of file
		}
		p.fifos.ends[0].Close()
		// A shim holds the fifo open itself, until it is told.
		ctx, cancel := context.WithTimeout(ctx, killTime)
		defer cancel()
		p.x.containers.ctrd.Tasks.CloseIO(ctx, &tasksapi.CloseIORequest{ContainerID: p.e.k.id, ExecID: p.e.id, Stdin: true})
	}()
}

// fifos are named pipes for the streams of one process.
type fifos struct {
	dir  string
	ends [3]*os.File // our ends
	keep []*os.File  // hold the output open until the shim does
}

// makeFifos makes a fifo for each stream that is not nil.
func makeFifos(dir string, streams execIO) (f *fifos, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make fifos in %s: %w", dir, err)
	}
	f = &fifos{dir: dir}
	defer errs.Undo(&err, f.remove)
	for i, wanted := range []bool{streams.stdin != nil, streams.stdout != nil, streams.stderr != nil} {
		if !wanted {
			continue
		}
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := unix.Mkfifo(name, 0o600); err != nil {
			return nil, fmt.Errorf("make fifo %s: %w", name, err)
		}
		// Both ways at once does not wait for the other side (fifo(7)).
		both, err := os.OpenFile(name, os.O_RDWR|unix.O_NONBLOCK, 0)
		if err != nil {
			return nil, fmt.Errorf("open fifo %s: %w", name, err)
		}
		if i == 0 {
			f.ends[0] = both
			continue
		}
		f.keep = append(f.keep, both)
		if f.ends[i], err = os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
			return nil, fmt.Errorf("open fifo %s: %w", name, err)
		}
	}
	return f, nil
}

// path of the fifo of a stream, or "".
func (f *fifos) path(i int) string {
	if f.ends[i] == nil {
		return ""
	}
	return filepath.Join(f.dir, strconv.Itoa(i))
}

// handOver lets the output end when the shim ends it.
func (f *fifos) handOver() {
	for _, k := range f.keep {
		k.Close()
	}
	f.keep = nil
}

// remove closes and removes all of it.
func (f *fifos) remove() error {
	f.handOver()
	for _, end := range f.ends {
		if end != nil {
			end.Close()
		}
	}
	return os.RemoveAll(f.dir)
}
