package shim

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/runtime-spec/specs-go"

	api "github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/internal/specjson"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/attach"
	"github.com/gantryd/gantry/shim/internal/heritage"
	"github.com/gantryd/gantry/shim/internal/logfile"
	"github.com/gantryd/gantry/shim/internal/metrics"
	"github.com/gantryd/gantry/shim/internal/stream"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// resume is the shim from its handover on: fd is the state of the program before.
func resume(fd int) error {
	if err := closeInherited(); err != nil {
		return err
	}
	// Of what this begins with a collection would find nothing, and cost what trim says.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(resumedLimit)
	if err := rename(os.Args[0]); err != nil {
		return err
	}
	st, err := readState(fd)
	if err != nil {
		return err
	}
	st.config.begin()
	s, err := inherit(st.config, st)
	if err != nil {
		return err
	}
	return s.Run()
}

// resumedLimit is what the Go runtime may have before it collects: twice what it
// begins with, nearly all of which it never touches, in bytes.
const resumedLimit = 16 << 20

// trial says whether resume would understand the state on fd.
func trial(fd int) error {
	_, err := readState(fd)
	return err
}

func readState(fd int) (*state, error) {
	f := os.NewFile(uintptr(fd), "shim-state")
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	data := make([]byte, end)
	if _, err := f.ReadAt(data, 0); err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	st := &state{}
	if err := wire.Unmarshal(data, st); err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	if st.version == 0 || st.version > stateVersion {
		return nil, fmt.Errorf("state has version %d, this program knows up to %d", st.version, stateVersion)
	}
	return st, nil
}

// rename gives the process the name that it had: exec calls it after the file,
// which may have been /proc/self/exe.
func rename(argv0 string) error {
	return os.WriteFile("/proc/self/comm", []byte(filepath.Base(argv0)), 0)
}

// inherit is the shim that st is of. All of it waits for the gate to open.
func inherit(cfg Config, st *state) (*Shim, error) {
	var heir heritage.Heir
	cfg.Socket = st.server.Listener(&heir)
	s, err := New(cfg)
	if err != nil {
		return nil, err
	}
	s.gate.Close(0) // nobody is inside
	defer s.gate.Open()
	s.execs.Store(st.execs)
	s.reaper.hold()
	defer s.reaper.release()
	for _, pid := range st.loggers {
		s.reaper.watch(int(pid), func(exit) {})
	}
	for i := range st.containers {
		c, err := s.inheritContainer(&st.containers[i], &heir)
		if err != nil {
			return nil, fmt.Errorf("take %s over: %w", st.containers[i].id, err)
		}
		s.containers[c.id] = c
	}
	if st.sandbox != nil {
		s.sandbox = s.inheritSandbox(st.sandbox)
	}
	for i := range st.events {
		s.events.queue = append(s.events.queue, &st.events[i])
	}
	s.events.resume()
	s.server.Resume(st.server, &heir)
	if st.listens {
		s.reaper.listen()
	}
	return s, nil
}

func (s *Shim) inheritContainer(st *containerState, heir *heritage.Heir) (*container, error) {
	c := &container{
		shim: s, id: st.id, bundle: st.bundle, mounted: st.mounted, record: st.record,
		owner: s.owner(st.id, st.uid, st.gid), ownPids: st.ownPids,
		cgroups: st.cgroups, ended: st.ended, execs: map[string]*process{},
	}
	c.runtime = st.record.runtime(st.bundle, s.reaper)
	c.ooms.Store(st.ooms)
	var err error
	if c.init, err = c.inheritProcess(&st.init, heir); err != nil {
		return nil, err
	}
	for i := range st.execs {
		p, err := c.inheritProcess(&st.execs[i], heir)
		if err != nil {
			return nil, err
		}
		c.execs[p.id] = p
	}
	if st.oom != nil {
		c.oomWatch = metrics.ResumeOOM(st.oom, heir, s.gate, c.tellOOM)
	}
	if s := c.init.status; c.oomWatch == nil && (s == taskapi.Running || s == taskapi.Paused) {
		go c.watchOOM() // it was about to begin
	}
	return c, nil
}

func (c *container) inheritProcess(st *processState, heir *heritage.Heir) (*process, error) {
	p := newProcess(c, st.id, st.uris)
	p.status, p.pid, p.exit = st.status, int(st.pid), st.exit.exit()
	p.connected, p.stdinClosed = st.connected, st.stdinClosed
	p.console = heir.File(st.console, "console")
	if st.sized {
		p.size = &unix.Winsize{Row: uint16(st.rows), Col: uint16(st.cols)}
	}
	if len(st.spec) > 0 {
		p.spec = &specs.Process{}
		if err := specjson.Unmarshal(st.spec, p.spec); err != nil {
			return nil, err
		}
	}
	if st.streams != nil {
		var err error
		if p.streams, err = c.inheritStreams(st.streams, st.uris, heir); err != nil {
			return nil, err
		}
	}
	if st.done {
		close(p.done)
	}
	if st.watched {
		c.shim.reaper.watch(p.pid, p.ended)
	}
	return p, nil
}

func (c *container) inheritStreams(st *streamsState, u uris, heir *heritage.Heir) (s *streams, err error) {
	s = &streams{
		gate:    c.shim.gate,
		stdin:   heir.File(st.stdin, "stdin"),
		console: heir.File(st.console, "console"),
		logger:  heir.File(st.logger, "logger"),
	}
	s.ends.terminal = u.terminal
	for _, fd := range st.ours {
		s.ours = append(s.ours, heir.File(int32(fd), "stream"))
	}
	if st.log != 0 || st.attach != nil {
		if err := s.inheritLogger(st, u, heir); err != nil {
			return nil, err
		}
	}
	for i := range st.outputs {
		s.outputs = append(s.outputs, s.inheritOutput(&st.outputs[i], heir))
	}
	if st.typed != nil {
		s.typed = s.inheritPump(st.typed, heir)
		go s.typed.Run() // ends when close closes its source
	}
	s.begin()
	return s, nil
}

func (s *streams) inheritLogger(st *streamsState, u uris, heir *heritage.Heir) error {
	l, err := api.ParseLogger(u.stdout)
	if err != nil {
		return err
	}
	if st.log != 0 {
		if s.log, err = logfile.Resume(l, heir.File(st.log, l.Log)); err != nil {
			return err
		}
	}
	if st.attach == nil {
		return nil
	}
	s.attach = attach.Resume(s.attachConfig(l, u.terminal), st.attach, heir)
	if s.console != nil {
		s.attach.Feed(s.console)
	}
	s.attach.Attend()
	return nil
}

func (s *streams) inheritOutput(st *outputState, heir *heritage.Heir) *output {
	o := &output{src: heir.File(st.src, "output")}
	if st.pump != nil {
		o.pump = s.inheritPump(st.pump, heir)
		return o
	}
	o.fan = &fan{attach: s.attach, stream: byte(st.stream)}
	if st.log != nil && s.log != nil {
		o.fan.log = s.log.Resume(streamName(o.fan.stream), st.log)
	}
	return o
}

func (s *streams) inheritPump(st *pumpState, heir *heritage.Heir) *stream.Pump {
	p := &stream.Pump{Src: heir.File(st.src, "source"), Dst: heir.File(st.dst, "destination"), Gate: s.gate}
	p.Resume(st.rest)
	return p
}

func (s *Shim) inheritSandbox(st *sandboxState) *sandbox {
	sb := &sandbox{
		id: st.id, created: time.Unix(0, st.created), started: st.started,
		exit: st.exit.exit(), ended: make(chan struct{}),
	}
	if st.pause {
		sb.pause = s.containers[st.id]
	}
	if st.ended {
		close(sb.ended)
	}
	if sb.started && sb.pause != nil {
		go sb.follow()
	}
	return sb
}
