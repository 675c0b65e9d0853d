package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	api "github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/shim/internal/attach"
	"github.com/gantryd/gantry/shim/internal/gate"
	"github.com/gantryd/gantry/shim/internal/logfile"
	"github.com/gantryd/gantry/shim/internal/stream"
)

// streams are the standard streams of one process: the ends that it gets, and
// what this side of them does.
//
//	fifo, file   the process has the file itself; there is nothing to copy
//	binary://    pipes to a logger program, or, when that is us, to our log
//	terminal     the runtime makes it; its master is copied to one of the above
type streams struct {
	ends ends // the process's, ours until handOver

	// ours is what we keep open: the other ends of fifos, so that a client
	// that comes or goes is noticed by nobody.
	ours  []*os.File
	stdin *os.File // the writer that holds stdin open until CloseIO; may be nil

	outputs []*output
	copies  atomic.Int32  // that have not ended
	ended   chan struct{} // nil until connected; closed when every copy has ended

	gate    *gate.Gate
	console *os.File
	typed   *stream.Pump // of stdin to the terminal; nil without
	logger  *os.File     // the pipe to a foreign logger, for a terminal
	log     *logfile.Log
	attach  *attach.Server
}

// output is one stream that we copy: to our log and attach clients, or to a file.
type output struct {
	src   *os.File
	fan   *fan
	pump  *stream.Pump // in fan's place
	ended bool
	busy  atomic.Bool // between a Write and the Drained after it
}

func (o *output) Write(p []byte) {
	o.busy.Store(true)
	o.fan.Write(p)
}

func (o *output) Drained() {
	o.fan.Drained()
	o.busy.Store(false)
}

func (o *output) run(g *gate.Gate) error {
	if o.pump != nil {
		return o.pump.Run()
	}
	return stream.Copy(o, o.src, g)
}

// uris say where a process's streams go, as the Task API words it.
type uris struct {
	stdin, stdout, stderr string
	terminal              bool
}

// owner is what a logger program is told about the container, who reaps it, by which
// gate its streams go, and whose the pipes and fifos are that the process gets: it can
// open them again by /proc/self/fd only if they are its user's.
type owner struct {
	namespace, id string
	reaper        *reaper
	gate          *gate.Gate
	uid, gid      int
}

// give makes o the owner of the process's ends.
func (o owner) give(e ends) error {
	if o.uid == 0 && o.gid == 0 {
		return nil
	}
	for _, f := range []*os.File{e.in, e.out, e.err} {
		if f == nil {
			continue
		}
		st, err := f.Stat()
		if err == nil && st.Mode().Type() == fs.ModeNamedPipe {
			err = f.Chown(o.uid, o.gid)
		}
		if err != nil {
			return fmt.Errorf("give streams to %d:%d: %w", o.uid, o.gid, err)
		}
	}
	return nil
}

// open makes the streams for u, or leaves nothing behind. A terminal's are
// opened once the runtime has made it.
func open(u uris, o owner) (s *streams, err error) {
	s = &streams{gate: o.gate}
	defer func() {
		if err != nil {
			s.handOver()
			s.close()
		}
	}()
	s.ends.terminal = u.terminal
	if err := s.openEnds(u, o); err != nil {
		return s, err
	}
	return s, o.give(s.ends)
}

// openEnds opens what u names.
func (s *streams) openEnds(u uris, o owner) error {
	scheme, _, isURI := strings.Cut(u.stdout, "://")
	switch {
	case isURI && scheme == "binary":
		if !isOurs(u.stdout) {
			return s.openForeign(u, o)
		}
		l, err := api.ParseLogger(u.stdout)
		if err != nil {
			return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
		}
		return s.openLogger(l, u)
	case isURI && scheme != "file" && scheme != "fifo":
		return fmt.Errorf("open stdout %s: %s is no scheme of ours: %w", u.stdout, scheme, errdefs.ErrInvalidArgument)
	case u.terminal:
		return nil // connect opens the files
	}
	return s.openFiles(u)
}

// isOurs says whether uri names this program as the logger, by its file's name:
// the file itself may have been replaced meanwhile.
func isOurs(uri string) bool {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "binary" {
		return false
	}
	self, err := os.Executable()
	return err == nil && filepath.Base(u.Path) == filepath.Base(strings.TrimSuffix(self, " (deleted)"))
}

// openFiles gives fifos and files to the process itself.
func (s *streams) openFiles(u uris) (err error) {
	if u.stdin != "" {
		if s.ends.in, s.stdin, err = openStdin(u.stdin); err != nil {
			return err
		}
		setBlocking(s.ends.in)
	}
	if s.ends.out, err = s.openOut(u.stdout); err != nil {
		return err
	}
	if u.stderr == u.stdout {
		s.ends.err = s.ends.out
		return nil
	}
	s.ends.err, err = s.openOut(u.stderr)
	return err
}

// openStdin opens a fifo for reading, and for writing, so that a client that has
// not come yet is not an end.
func openStdin(path string) (r, w *os.File, err error) {
	path = strings.TrimPrefix(path, "fifo://")
	if r, err = openFile(path, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
		return nil, nil, fmt.Errorf("open stdin: %w", err)
	}
	if w, err = openFile(path, unix.O_WRONLY|unix.O_NONBLOCK); err != nil {
		r.Close()
		return nil, nil, fmt.Errorf("open stdin: %w", err)
	}
	return r, w, nil
}

// openOut opens a fifo or file for the process to write to; empty is nil.
func (s *streams) openOut(uri string) (*os.File, error) {
	f, err := s.openOutPollable(uri)
	if f != nil {
		setBlocking(f)
	}
	return f, err
}

func (s *streams) openOutPollable(uri string) (*os.File, error) {
	if uri == "" {
		return nil, nil
	}
	if path, ok := strings.CutPrefix(uri, "file://"); ok {
		if p, err := url.PathUnescape(path); err == nil {
			path = p
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, fmt.Errorf("open output: %w", err)
		}
		f, err := openFile(path, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT)
		if err != nil {
			return nil, fmt.Errorf("open output: %w", err)
		}
		return f, nil
	}
	path := strings.TrimPrefix(uri, "fifo://")
	// The reader that we keep makes the writer open at once, keeps what is
	// written until a client comes, and keeps SIGPIPE away when it goes.
	r, err := openFile(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open output: %w", err)
	}
	s.ours = append(s.ours, r)
	w, err := openFile(path, unix.O_WRONLY|unix.O_APPEND|unix.O_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("open output: %w", err)
	}
	return w, nil
}

func openFile(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0o640)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// setBlocking undoes O_NONBLOCK: a container expects streams that block.
func setBlocking(f *os.File) {
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetNonblock(int(fd), false) })
	}
}

// openLogger makes the pipes to our own log and attach socket.
func (s *streams) openLogger(l api.Logger, u uris) (err error) {
	if l.Log != "" && l.Driver != api.None {
		if s.log, err = logfile.Open(l); err != nil {
			return err
		}
	}
	var in *os.File
	if !u.terminal {
		if l.Stdin {
			if in, s.ends.in, err = stream.InPipe(); err != nil {
				return err
			}
		} else if u.stdin != "" {
			if s.ends.in, s.stdin, err = openStdin(u.stdin); err != nil {
				return err
			}
			setBlocking(s.ends.in)
		}
		if err := s.pipes(u); err != nil {
			return err
		}
	}
	if l.Attach == "" {
		return nil
	}
	return s.listen(l, u.terminal, in)
}

// listen opens the attach socket.
func (s *streams) listen(l api.Logger, tty bool, in *os.File) (err error) {
	cfg := s.attachConfig(l, tty)
	cfg.Stdin = in
	s.attach, err = attach.Listen(cfg)
	return err
}

func (s *streams) attachConfig(l api.Logger, tty bool) attach.Config {
	cfg := attach.Config{Path: l.Attach, TTY: tty, Spill: spillDir(l), Gate: s.gate}
	if s.log != nil {
		cfg.Reopen = s.log.Reopen
	}
	return cfg
}

// pipes makes one pipe for stdout and one for stderr.
func (s *streams) pipes(u uris) error {
	out, theirs, err := stream.OutPipe()
	if err != nil {
		return err
	}
	s.ends.out = theirs
	s.outputs = append(s.outputs, &output{src: out})
	if out, theirs, err = stream.OutPipe(); err != nil {
		return err
	}
	s.ends.err = theirs
	s.outputs = append(s.outputs, &output{src: out})
	return nil
}

// spillDir is where output waits for slow clients: beside the log, on a disk.
func spillDir(l api.Logger) string {
	if l.Log != "" {
		return filepath.Dir(l.Log)
	}
	return os.TempDir()
}

// connect begins to copy. console is the terminal's master, nil without.
func (s *streams) connect(console *os.File, u uris) error {
	if console != nil {
		if err := s.connectConsole(console, u); err != nil {
			return err
		}
	}
	for i, o := range s.outputs {
		if o.pump == nil && o.fan == nil {
			o.fan = s.fanOut(byte(i) + api.Stdout)
		}
	}
	s.begin()
	return nil
}

// begin copies all outputs, each until it ends or close closes it.
func (s *streams) begin() {
	s.ended = make(chan struct{})
	s.copies.Store(int32(len(s.outputs)))
	for _, o := range s.outputs {
		go s.copy(o)
	}
	if len(s.outputs) == 0 {
		close(s.ended)
	}
}

func (s *streams) copy(o *output) {
	if err := o.run(s.gate); err != nil {
		slog.Error("output ends early", "err", err)
	}
	s.gate.Enter()
	defer s.gate.Leave()
	o.end()
	if o.src != s.console {
		o.src.Close()
	}
	o.ended = true
	if s.copies.Add(-1) == 0 {
		close(s.ended)
	}
}

func (o *output) end() {
	switch {
	case o.pump != nil:
		o.pump.Dst.Close()
	case o.fan.log != nil:
		o.fan.log.End()
	}
}

// connectConsole joins the terminal to the files or the logger.
func (s *streams) connectConsole(console *os.File, u uris) error {
	s.console = console
	o := &output{src: console}
	s.outputs = append(s.outputs, o)
	if s.attach != nil {
		s.attach.Feed(console)
	}
	if s.log == nil && s.attach == nil && u.stdout != "" {
		dst := s.logger // a foreign logger's pipe
		if dst == nil {
			var err error
			if dst, err = s.openOutPollable(u.stdout); err != nil {
				return err
			}
		}
		s.ours = append(s.ours, dst) // closing it ends a copy that nobody reads
		o.pump = &stream.Pump{Dst: dst, Src: console, Gate: s.gate}
	}
	if u.stdin == "" {
		return nil
	}
	in, keep, err := openStdin(u.stdin)
	if err != nil {
		return err
	}
	s.stdin = keep
	s.ours = append(s.ours, in)
	s.typed = &stream.Pump{Dst: console, Src: in, Gate: s.gate}
	go s.typed.Run() // ends when close closes in
	return nil
}

// fanOut is the sink of one of our own streams: the log, then attach clients.
func (s *streams) fanOut(st byte) *fan {
	f := &fan{attach: s.attach, stream: st}
	if s.log != nil {
		f.log = s.log.Stream(streamName(st))
	}
	return f
}

func streamName(st byte) string { return []string{"stdin", "stdout", "stderr"}[st] }

type fan struct {
	log    *logfile.Stream
	attach *attach.Server
	stream byte
}

func (f *fan) Write(p []byte) {
	if f.log != nil {
		f.log.Write(p)
	}
	if f.attach != nil {
		f.attach.Write(f.stream, p)
	}
}

func (f *fan) Drained() {
	if f.log != nil {
		f.log.Drained()
	}
}

// handOver closes the process's ends, which it has by now.
func (s *streams) handOver() {
	for _, f := range []*os.File{s.ends.in, s.ends.out, s.ends.err} {
		if f != nil {
			f.Close()
		}
	}
	s.ends = ends{terminal: s.ends.terminal}
}

// closeStdin ends the process's stdin.
func (s *streams) closeStdin() error {
	if s.attach != nil {
		if err := s.attach.CloseStdin(); err != nil {
			return err
		}
	}
	if s.stdin == nil {
		return nil
	}
	if err := s.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// drainLimit bounds how long an exit waits for its output to be written.
const drainLimit = 10 * time.Second

// drain waits until all that an ended process wrote is in the log. A process
// that it left behind may hold the pipe open: then what is in there is enough.
func (s *streams) drain() {
	for end, idle := time.Now().Add(drainLimit), 0; idle < 2 && time.Now().Before(end); {
		select {
		case <-s.ended:
			return
		case <-time.After(5 * time.Millisecond):
		}
		if idle++; s.busy() {
			idle = 0
		}
	}
}

func (s *streams) busy() bool {
	for _, o := range s.outputs {
		if o.busy.Load() || o.pump != nil && len(o.pump.Rest()) > 0 || readable(o.src) {
			return true
		}
	}
	return false
}

func readable(f *os.File) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	yes := false
	raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		yes = err == nil && n > 0 && p[0].Revents&unix.POLLIN != 0
	})
	return yes
}

// close lets go of everything; attach clients still get what waits for them.
func (s *streams) close() error {
	errs := []error{s.closeStdin()}
	for _, f := range s.ours {
		f.Close() // or its copy has
	}
	for _, o := range s.outputs {
		o.src.Close() // ends its copy
	}
	if s.ended != nil {
		<-s.ended
	}
	if s.attach != nil {
		s.attach.End()
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	return errors.Join(errs...)
}
