package shim

import (
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/api/journey"
)

// runtime runs one container: ours, linked in (linkedRuntime), or any other by
// its command line (commandRuntime). Every child that its methods leave behind is
// a child of this process, which reaps it.
type runtime interface {
	// create makes the container and leaves its first process waiting for start.
	create(e ends) (*started, error)
	start() error
	// checkpoint writes the processes to files.
	checkpoint(o checkpoint) error
	// restore makes the container of such files, in the place of create and start.
	restore(images string, e ends) (*started, error)
	// exec runs one more process.
	exec(p *specs.Process, e ends) (*started, error)
	// kill signals the first process, or every process with all.
	kill(sig int, all bool) error
	// pids are the processes of the container, in the host's pid namespace.
	pids() ([]int, error)
	pause() error
	resume() error
	// update sets resources, OCI LinuxResources as JSON.
	update(resources []byte) error
	// delete removes what the runtime keeps of a container; with force it kills first.
	delete(force bool) error
	// rest lets go of memory that is not needed while the container just runs.
	rest()
	// spans are the runtime's own steps so far, for the journey.
	spans() []journey.Span
}

// ends are the container's ends of its streams; nil is /dev/null.
type ends struct {
	in, out, err *os.File
	terminal     bool
}

// started is a process as the runtime hands it over.
type started struct {
	pid     int
	console *os.File // master of its terminal; nil without
}

// record is what `delete` needs to know of a container whose shim is gone. It is
// in the bundle, as JSON, from before the runtime is asked until Delete.
type record struct {
	ID            string `json:"id"`
	Binary        string `json:"binary,omitempty"` // of the runtime; empty is the linked one
	Root          string `json:"root"`
	SystemdCgroup bool   `json:"systemdCgroup,omitempty"`
	NoPivot       bool   `json:"noPivot,omitempty"`
	NoNewKeyring  bool   `json:"noNewKeyring,omitempty"`
	Attach        string `json:"attach,omitempty"` // path of the attach socket
	CriuWork      string `json:"-"`                // where a restore keeps CRIU's log
	Trace         bool   `json:"-"`
}

// runtime is the runtime that r names, for the bundle in dir.
func (r record) runtime(bundle string, reap *reaper) runtime {
	if r.Binary == "" {
		return &linked{record: r, bundle: bundle, reaper: reap}
	}
	return &command{record: r, bundle: bundle, reaper: reap}
}
