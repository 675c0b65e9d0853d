package torture

import (
	"time"

	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// sandboxOperations are the life of a pod, as CRI's servers lead it.
var sandboxOperations = []operation{
	{
		name: "create of a sandbox", prepare: (*stage).podRecorded, shim: true,
		do: (*stage).createPod,
		again: func(s *stage, err error) {
			if err != nil || s.killed {
				s.removePod()
				s.fine("create again", s.createPod())
			}
			s.fine("start", s.startPod())
			s.podIs("SANDBOX_READY")
		},
	},
	{
		name: "start of a sandbox", prepare: func(s *stage) { s.podRecorded(); s.fine("create", s.createPod()) }, shim: true,
		do: (*stage).startPod,
		again: func(s *stage, err error) {
			if s.killed {
				s.removePod()
				s.fine("create again", s.createPod())
				err = status.Error(codes.Unavailable, "")
			}
			if err != nil {
				s.fine("start again", s.startPod(), codes.FailedPrecondition)
			}
			s.podIs("SANDBOX_READY")
		},
	},
	{
		name: "stop of a sandbox", prepare: (*stage).podRuns, shim: true,
		do: (*stage).stopPod,
		again: func(s *stage, _ error) {
			s.fine("stop again", s.stopPod(), codes.NotFound, codes.FailedPrecondition)
			r, err := again(func() (*sandboxapi.ControllerWaitResponse, error) {
				return s.n.sandboxes.Wait(in(ours), &sandboxapi.ControllerWaitRequest{SandboxID: s.name, Sandboxer: "shim"})
			})
			if err != nil || r.ExitStatus != 137 {
				s.errorf("the sandbox exited with %d (%v), and was to with 137", r.GetExitStatus(), err)
			}
		},
	},
	{
		name: "shutdown of a sandbox", prepare: func(s *stage) { s.podRuns(); s.fine("stop", s.stopPod()) }, shim: true,
		do: (*stage).shutPod,
		again: func(s *stage, err error) {
			if err != nil {
				s.fine("shut down again", s.shutPod(), codes.NotFound)
			}
			s.fine("create the next", s.createPod())
			s.fine("start", s.startPod())
			s.podIs("SANDBOX_READY")
		},
	},
}

func (s *stage) pod() *types.Sandbox {
	k := s.n.container(s.name)
	return &types.Sandbox{SandboxID: s.name, Sandboxer: "shim", Runtime: &types.Sandbox_Runtime{Name: k.Runtime.Name}, Spec: k.Spec}
}

// podRecorded is a sandbox with a snapshot for its first process, and no shim.
func (s *stage) podRecorded() {
	s.name += "r" // runs on: see ends
	s.lease()
	s.fine("prepare", s.snapshot("base"))
	_, err := s.n.pods.Create(in(ours), &sandboxapi.StoreCreateRequest{Sandbox: s.pod()})
	s.fine("record", err)
	s.undo = append(s.undo, func() {
		s.removePod()
		_, err := s.n.pods.Delete(in(ours), &sandboxapi.StoreDeleteRequest{SandboxID: s.name})
		s.fine("remove record", err)
	})
}

func (s *stage) podRuns() {
	s.podRecorded()
	s.fine("create", s.createPod())
	s.fine("start", s.startPod())
}

func (s *stage) createPod() error {
	r, err := s.n.snapshots.Mounts(in(ours), &snapshotsapi.MountsRequest{Snapshotter: "overlayfs", Key: s.name + "rw"})
	if err == nil {
		_, err = s.n.sandboxes.Create(in(ours), &sandboxapi.ControllerCreateRequest{SandboxID: s.name, Sandboxer: "shim", Sandbox: s.pod(), Rootfs: r.Mounts})
	}
	return err
}

func (s *stage) startPod() error {
	_, err := s.n.sandboxes.Start(in(ours), &sandboxapi.ControllerStartRequest{SandboxID: s.name, Sandboxer: "shim"})
	return err
}

func (s *stage) stopPod() error {
	_, err := s.n.sandboxes.Stop(in(ours), &sandboxapi.ControllerStopRequest{SandboxID: s.name, Sandboxer: "shim"})
	return err
}

func (s *stage) shutPod() error {
	_, err := s.n.sandboxes.Shutdown(in(ours), &sandboxapi.ControllerShutdownRequest{SandboxID: s.name, Sandboxer: "shim"})
	return err
}

// removePod ends the sandbox, if there is one, and takes it away; its record stays.
func (s *stage) removePod() {
	s.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s.fine("stop", s.stopPod(), codes.NotFound, codes.FailedPrecondition, codes.Unavailable)
		if err = s.shutPod(); err == nil || status.Code(err) == codes.NotFound {
			return
		}
	}
	s.errorf("remove sandbox: %v", err)
}

func (s *stage) podIs(want string) {
	s.t.Helper()
	r, err := s.n.sandboxes.Status(in(ours), &sandboxapi.ControllerStatusRequest{SandboxID: s.name, Sandboxer: "shim"})
	if err != nil || r.State != want {
		s.errorf("the sandbox is %s (%v), and was to be %s", r.GetState(), err, want)
	}
}
