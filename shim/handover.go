package shim

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/specjson"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/heritage"
	"github.com/gantryd/gantry/shim/internal/stream"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// A shim hands itself over by execve(2). The process stays: pid, children,
// subreaper, session, cgroups, descriptors. Its memory goes, and with it what
// creating a container took, and the program, which may be a newer one:
//
//	close the gate ── state in a sealed memfd ── exec ── state ── open the gate
//
// With the gate closed every byte is in the kernel or in the state, and of the calls
// only those that wait are under way; they begin again. Nothing on disk changes, so
// that a shim killed meanwhile is one that was killed. Where exec fails, the gate is
// opened again.

// errBusy says that the shim did not come to rest.
var errBusy = errors.New("the shim is busy")

// stillWithin is how long a shim may take to come to rest, and what comes meanwhile
// may have to wait.
const stillWithin = 100 * time.Millisecond

// self is this program, also where its file was replaced or removed.
const self = "/proc/self/exe"

// handOver goes on as program. An error says that this one goes on.
func (s *Shim) handOver(program string) error {
	s.handing.Lock()
	defer s.handing.Unlock()
	memory, files, err := s.rest()
	if err != nil {
		return err
	}
	defer s.gate.Open()
	defer memory.Close()
	argv := append(s.cfg.argv(os.Args[0]), "-resume", strconv.Itoa(int(files.FD(memory))))
	if err = files.Inherit(true); err == nil {
		err = unix.Exec(program, argv, os.Environ())
	}
	return errors.Join(fmt.Errorf("go on as %s: %w", program, err), files.Inherit(false))
}

// rest closes the gate, and is the state with the files in it. Where it fails the
// gate is open.
func (s *Shim) rest() (memory *os.File, files *heritage.Files, err error) {
	if !s.gate.Close(stillWithin) {
		return nil, nil, errBusy
	}
	files = &heritage.Files{}
	st, err := s.bequeath(files)
	if err == nil {
		memory, err = sealed(wire.Marshal(st))
	}
	if err != nil {
		s.gate.Open()
	}
	return memory, files, err
}

// sealed is a memfd with data, which nobody changes any more.
func sealed(data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("shim-state", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "shim-state")
	_, err = f.WriteAt(data, 0)
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SEAL|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("write state: %w", err), f.Close())
	}
	return f, nil
}

// tryTimeout is how long another program may take to say that it understands.
const tryTimeout = 10 * time.Second

// try has program say whether it could go on with this shim's state: once it has our
// place, it must. What it reads is the state of a moment ago, so that nobody waits for it.
func (s *Shim) try(program string) error {
	s.handing.Lock()
	defer s.handing.Unlock()
	memory, _, err := s.rest()
	if err != nil {
		return err
	}
	s.gate.Open()
	defer memory.Close()
	s.reaper.hold()
	defer s.reaper.release()
	ctx, cancel := context.WithTimeout(context.Background(), tryTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, "-resume", "3", "-trial") // ExtraFiles begin with 3
	cmd.Env = append(environ(), "GOMAXPROCS=1")
	cmd.ExtraFiles = []*os.File{memory}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s cannot go on with this shim's state: %w: %s", program, err, out)
	}
	return nil
}

// settleAfter keeps a handover out of the way of a start, and of a short container.
const settleAfter = 500 * time.Millisecond

// settleTries is how often a shim tries to come to rest, each time after twice as long.
const settleTries = 8

// settleSoon gives back to the kernel, a little later, what a start needed and
// waiting does not.
func (s *Shim) settleSoon() {
	time.AfterFunc(settleAfter, func() { s.settle(settleAfter, settleTries) })
}

func (s *Shim) settle(waited time.Duration, tries int) {
	if !s.runs() {
		return
	}
	err := s.handOver(self)
	s.trim()
	if tries--; errors.Is(err, errBusy) && tries > 0 {
		time.AfterFunc(2*waited, func() { s.settle(2*waited, tries) })
		return
	}
	slog.Warn("shim keeps memory that it needs no more", "err", err)
}

// runs says whether the shim has a container that was started and has not ended.
func (s *Shim) runs() bool {
	for _, c := range s.all() {
		if st := c.init.state().Status; st == taskapi.Running || st == taskapi.Paused {
			return true
		}
	}
	return false
}

// bequeath is what the shim knows, with its gate closed.
func (s *Shim) bequeath(files *heritage.Files) (*state, error) {
	st := &state{version: stateVersion, config: s.cfg, server: s.server.State(files), execs: s.execs.Load()}
	if !st.server.Serves() {
		return nil, errors.New("the shim ends")
	}
	watched := s.reaper.bequeath(st)
	s.events.bequeath(st)
	for _, c := range s.all() {
		cs, err := c.bequeath(files, watched)
		if err != nil {
			return nil, err
		}
		st.containers = append(st.containers, *cs)
	}
	for pid := range watched {
		st.loggers = append(st.loggers, uint64(pid))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sandbox != nil {
		st.sandbox = s.sandbox.bequeath()
	}
	return st, nil
}

// bequeath adds what the reaper knows to st, and is the pids that it watches.
func (r *reaper) bequeath(st *state) map[int]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	st.listens = r.signals != nil
	watched := map[int]bool{}
	for pid := range r.watched {
		watched[pid] = true
	}
	return watched
}

func (p *publisher) bequeath(st *state) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.queue {
		st.events = append(st.events, *e)
	}
}

// bequeath is what is known of the container. What it has of watched is taken off that.
func (c *container) bequeath(files *heritage.Files, watched map[int]bool) (_ *containerState, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := &containerState{
		id: c.id, bundle: c.bundle, mounted: c.mounted, record: c.record,
		uid: uint32(c.owner.uid), gid: uint32(c.owner.gid), ownPids: c.ownPids,
		cgroups: c.cgroups, ooms: c.ooms.Load(), ended: c.ended,
	}
	if c.oomWatch != nil {
		st.oom = c.oomWatch.State(files)
	}
	if st.init, err = c.init.bequeath(files, watched); err != nil {
		return nil, err
	}
	if c.journey != nil && st.init.status == taskapi.Created {
		return nil, errBusy // its journey goes on, and is told by this program
	}
	if st.init.pid == 0 && !st.init.done {
		return nil, errBusy // it waits to be restored, with the process's ends of the streams
	}
	for _, p := range c.execs {
		ps, err := p.bequeath(files, watched)
		if err != nil {
			return nil, err
		}
		st.execs = append(st.execs, ps)
	}
	return st, nil
}

func (p *process) bequeath(files *heritage.Files, watched map[int]bool) (processState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := processState{
		id: p.id, uris: p.uris, status: p.status, pid: int32(p.pid), exit: p.exit.state(),
		connected: p.connected, stdinClosed: p.stdinClosed,
		watched: watched[p.pid], done: isClosed(p.done), console: files.FD(p.console),
	}
	delete(watched, p.pid)
	if p.size != nil {
		st.sized, st.rows, st.cols = true, uint32(p.size.Row), uint32(p.size.Col)
	}
	if p.spec != nil && p.status == taskapi.Created {
		var err error
		if st.spec, err = specjson.Marshal(p.spec); err != nil {
			return st, err
		}
	}
	if p.streams != nil {
		st.streams = p.streams.bequeath(files)
	}
	return st, nil
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (s *streams) bequeath(files *heritage.Files) *streamsState {
	st := &streamsState{stdin: files.FD(s.stdin), console: files.FD(s.console), logger: files.FD(s.logger)}
	for _, f := range s.ours {
		if fd := files.FD(f); fd != 0 {
			st.ours = append(st.ours, uint64(fd))
		}
	}
	if s.log != nil {
		st.log = files.FD(s.log.File())
	}
	if s.attach != nil {
		st.attach = s.attach.State(files)
	}
	for _, o := range s.outputs {
		if !o.ended {
			st.outputs = append(st.outputs, o.bequeath(files))
		}
	}
	if s.typed != nil {
		st.typed = pumped(s.typed, files)
	}
	return st
}

func (o *output) bequeath(files *heritage.Files) outputState {
	st := outputState{src: files.FD(o.src)}
	if o.pump != nil {
		st.pump = pumped(o.pump, files)
		return st
	}
	st.stream = uint32(o.fan.stream)
	if o.fan.log != nil {
		st.log = o.fan.log.State()
	}
	return st
}

func pumped(p *stream.Pump, files *heritage.Files) *pumpState {
	return &pumpState{src: files.FD(p.Src), dst: files.FD(p.Dst), rest: p.Rest()}
}

func (sb *sandbox) bequeath() *sandboxState {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	return &sandboxState{
		id: sb.id, created: sb.created.UnixNano(), pause: sb.pause != nil, started: sb.started,
		ended: isClosed(sb.ended), exit: sb.exit.state(),
	}
}
