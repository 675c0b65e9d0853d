package ociruntime

import (
	"log/slog"
	"os"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultRoot is where the state of containers is kept; a tmpfs serves best.
const DefaultRoot = "/run/gantry-runtime"

// CreateOptions says what [Create] makes a container from.
type CreateOptions struct {
	ID     string      // name of the container; also of its state directory Root/ID
	Bundle string      // directory of config.json
	Root   string      // DefaultRoot when empty
	Spec   *specs.Spec // read from Bundle/config.json when nil

	// Stdio are the container's standard streams, unless process.terminal is
	// set. A nil stream is /dev/null. The caller keeps them and closes its own.
	Stdin, Stdout, Stderr *os.File
	// ExtraFiles become descriptors 3 and up of the container (runc's
	// --preserve-fds); where one is nil the number stays free. The caller keeps them.
	ExtraFiles []*os.File

	SystemdCgroup bool // cgroupsPath is slice:prefix:name
	NoCgroup      bool // the container stays in the caller's cgroups
	Rootless      bool // without a cgroupsPath, do without the cgroups that may not be made
	NoPivot       bool // chroot in place of pivot_root, where the rootfs is a ramdisk
	NoNewKeyring  bool // keep the caller's session keyring
	Notify        bool // the program has a socket to say that it is ready: Container.NotifySocket

	Trace bool         // keep the time that each step took: Container.Trace
	Log   *slog.Logger // warnings, such as a clamped oom_score_adj, and what is done; nil is silent

	// Reap waits for a child of this process by pid and returns how it ended.
	// A caller that reaps every child of the process itself must give it; it is
	// used for hooks and for children that died before Create returned.
	// When nil the package waits by pidfd.
	Reap func(pid int) (syscall.WaitStatus, error)
}

// ExecOptions says how [Container.Exec] runs one more process.
type ExecOptions struct {
	Stdin, Stdout, Stderr *os.File   // as in CreateOptions
	ExtraFiles            []*os.File // as in CreateOptions
	// Cgroups are groups below the container's, by controller of cgroup v1; "" is for
	// the rest. What is not named is the container's own.
	Cgroups map[string]string
	// Terminal is given the terminal's master before the program runs, when there is one.
	Terminal     func(master *os.File) error
	IgnorePaused bool // in a paused container wait for its resume
	Trace        bool
	Log          *slog.Logger
	Reap         func(pid int) (syscall.WaitStatus, error)
}

// Process is a process that [Container.Exec] started inside the container. It
// runs already. It is a direct child of the caller, who reaps it.
type Process struct {
	Pid     int      // in the caller's pid namespace
	PidFD   *os.File // owned by the caller of Exec
	Console *os.File // master of its terminal, nil without; owned by the caller
	Trace   []Timing // with ExecOptions.Trace
}

// Timing is how long one step of a plan took, for api/journey.
type Timing struct {
	Part  string // "runtime" for the parent's steps, "child" for the table's
	Name  string // the step's name
	Call  string // the system call
	Start time.Time
	Took  time.Duration
}

// Status is the life of a container as the runtime specification words it, and
// "paused" as all runtimes do.
type Status string

// The statuses of a container.
const (
	Creating Status = "creating"
	Created  Status = "created"
	Running  Status = "running"
	Paused   Status = "paused"
	Stopped  Status = "stopped"
)

// State is what `state` prints: the specification's state and runc's additions.
type State struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Pid         int               `json:"pid"` // 0 when stopped
	Status      Status            `json:"status"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Owner       string            `json:"owner"`
}
