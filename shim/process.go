package shim

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/atomicfile"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

const sigKill = unix.SIGKILL

// verb is what can happen to a process.
type verb string

const (
	doStart  verb = "start"
	doPause  verb = "pause"
	doResume verb = "resume"
	doExit   verb = "exit"
	doDelete verb = "delete"

	doCheckpoint verb = "checkpoint"
)

// deleted is the state after the last.
const deleted taskapi.Status = 100

// next is the whole life of a process: what is missing here is refused.
var next = map[taskapi.Status]map[verb]taskapi.Status{
	taskapi.Created: {doStart: taskapi.Running, doExit: taskapi.Stopped, doDelete: deleted},
	taskapi.Running: {doPause: taskapi.Paused, doExit: taskapi.Stopped, doCheckpoint: taskapi.Running},
	taskapi.Paused:  {doResume: taskapi.Running, doExit: taskapi.Stopped, doCheckpoint: taskapi.Paused},
	taskapi.Stopped: {doDelete: deleted},
}

var stateName = map[taskapi.Status]string{
	taskapi.Created: "created",
	taskapi.Running: "running",
	taskapi.Paused:  "paused",
	taskapi.Stopped: "stopped",
	deleted:         "deleted",
}

// process is a container's first process, or an exec.
type process struct {
	container *container
	id        string // of the exec; empty for the first process
	uris      uris
	spec      *specs.Process // of an exec

	// verbs is held while one of them is carried out. An exit waits for it, so
	// that what a verb publishes comes first.
	verbs sync.Mutex

	mu          sync.Mutex
	status      taskapi.Status
	pid         int
	exit        exit
	streams     *streams
	console     *os.File      // master of its terminal; nil without
	size        *unix.Winsize // of the terminal, also before it is there
	connected   bool          // streams and console are there
	stdinClosed bool          // asked for, perhaps before

	done chan struct{} // closed when the process has ended and its log is whole
}

func newProcess(c *container, id string, u uris) *process {
	return &process{container: c, id: id, uris: u, status: taskapi.Created, done: make(chan struct{})}
}

// name is the process's id in events: the exec's, or the container's.
func (p *process) name() string {
	if p.id == "" {
		return p.container.id
	}
	return p.id
}

// can says whether v may follow now.
func (p *process) can(v verb) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v == doStart && !p.exit.at.IsZero() {
		return fmt.Errorf("%s %s: it could not be started before: %w", v, p.name(), errdefs.ErrFailedPrecondition)
	}
	if _, ok := next[p.status][v]; !ok {
		return fmt.Errorf("%s %s: it is %s: %w", v, p.name(), stateName[p.status], errdefs.ErrFailedPrecondition)
	}
	return nil
}

// unstarted says that nobody has tried to start it.
func (p *process) unstarted() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.status == taskapi.Created && p.exit.at.IsZero()
}

// unmade says that there was no process, and nobody has tried.
func (p *process) unmade() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid == 0 && p.exit.at.IsZero()
}

// did records that v happened.
func (p *process) did(v verb) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := next[p.status][v]; ok {
		p.status = s
	}
}

// begin records the process that the runtime made.
func (p *process) begin(s *started) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = s.pid
}

// connect joins the process to its streams, and does what was asked for before
// they were there: clients resize and end the stdin of an exec that is starting.
func (p *process) connect(console *os.File) {
	if err := p.streams.connect(console, p.uris); err != nil {
		slog.Error("streams are not connected", "id", p.name(), "err", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.console, p.connected = console, true
	if p.size != nil && console != nil {
		if err := resize(console, p.size); err != nil {
			slog.Error("terminal is not resized", "id", p.name(), "err", err)
		}
	}
	if p.stdinClosed {
		if err := p.streams.closeStdin(); err != nil {
			slog.Error("stdin is not closed", "id", p.name(), "err", err)
		}
	}
}

// resize sets the size of the terminal, now or when it is there.
func (p *process) resize(width, height uint32) error {
	if !p.uris.terminal {
		return fmt.Errorf("resize %s: it has no terminal: %w", p.name(), errdefs.ErrFailedPrecondition)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.size = &unix.Winsize{Row: uint16(height), Col: uint16(width)}
	if p.console == nil {
		return nil
	}
	if err := resize(p.console, p.size); err != nil {
		return fmt.Errorf("resize %s: %w", p.name(), err)
	}
	return nil
}

// sizeSpec has the runtime make the terminal with the size that was asked for.
func (p *process) sizeSpec() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size != nil {
		p.spec.ConsoleSize = &specs.Box{Height: uint(p.size.Row), Width: uint(p.size.Col)}
	}
}

// closeStdin ends stdin, now or when it is there.
func (p *process) closeStdin() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stdinClosed = true
	if !p.connected {
		return nil
	}
	return p.streams.closeStdin()
}

// ended carries out the exit of the process.
func (p *process) ended(e exit) {
	p.awaitVerb()
	if p.id == "" {
		p.container.initEnded(e)
	}
	p.streams.drain()

	p.verbs.Lock()
	defer p.verbs.Unlock()
	if p.id == "" {
		p.container.saveExit(e)
	}
	p.did(doExit)
	p.mu.Lock()
	p.exit = e
	p.mu.Unlock()
	p.container.shim.events.publish(&taskapi.TaskExit{
		ContainerID: p.container.id,
		ID:          p.name(),
		Pid:         uint32(p.pid),
		ExitStatus:  e.status,
		ExitedAt:    taskapi.At(e.at),
	})
	if p.streams.attach != nil {
		p.streams.attach.End()
	}
	close(p.done)
}

// awaitVerb waits for a verb that is being carried out: what it publishes comes first.
func (p *process) awaitVerb() {
	p.verbs.Lock()
	defer p.verbs.Unlock()
}

// state is the process as State tells it.
func (p *process) state() *taskapi.StateResponse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &taskapi.StateResponse{
		ID:         p.container.id,
		Bundle:     p.container.bundle,
		Pid:        uint32(p.pid),
		Status:     p.status,
		Stdin:      p.uris.stdin,
		Stdout:     p.uris.stdout,
		Stderr:     p.uris.stderr,
		Terminal:   p.uris.terminal,
		ExitStatus: p.exit.status,
		ExitedAt:   taskapi.At(p.exit.at),
		ExecID:     p.id,
	}
}

// deleted is what Delete answers.
func (p *process) deleteResponse() *taskapi.DeleteResponse {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &taskapi.DeleteResponse{
		Pid:        uint32(p.pid),
		ExitStatus: p.exit.status,
		ExitedAt:   taskapi.At(p.exit.at),
	}
}

// pidFile holds the pid of the first process, in the bundle, where containerd's
// own shim has it too.
const pidFile = "init.pid"

func savePid(bundle string, pid int) error {
	return os.WriteFile(filepath.Join(bundle, pidFile), strconv.AppendInt(nil, int64(pid), 10), 0o600)
}

// loadPid reads what savePid wrote; 0 when there never was a process.
func loadPid(bundle string) int {
	data, err := os.ReadFile(filepath.Join(bundle, pidFile))
	if err != nil {
		return 0
	}
	pid, _ := strconv.Atoi(string(data))
	return pid
}

// exitFile holds "STATUS NANOSECONDS" of the first process, in the bundle, until Delete.
const exitFile = "exit"

func saveExit(bundle string, e exit) error {
	return atomicfile.Write(filepath.Join(bundle, exitFile), fmt.Appendf(nil, "%d %d\n", e.status, e.at.UnixNano()), 0o600)
}

// loadExit reads what saveExit wrote; fs.ErrNotExist when the process had not ended.
func loadExit(bundle string) (exit, error) {
	data, err := os.ReadFile(filepath.Join(bundle, exitFile))
	if err != nil {
		return exit{}, err
	}
	var e exit
	var nanos int64
	if _, err := fmt.Sscanf(string(data), "%d %d", &e.status, &nanos); err != nil {
		return exit{}, fmt.Errorf("read exit status: %w", err)
	}
	e.at = time.Unix(0, nanos)
	return e, nil
}
