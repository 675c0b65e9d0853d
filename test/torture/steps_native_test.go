package torture

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/ttrpc"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// nativeOperations are what clients of lifecycle do.
var nativeOperations = []operation{
	{
		name: "ingest", prepare: (*stage).lease,
		do: (*stage).ingest,
		again: func(s *stage, err error) {
			if err == nil {
				s.fine("read the blob", s.n.verify(digest.FromBytes(s.blob())))
			}
			s.fine("write again", s.ingest(), codes.AlreadyExists)
			s.fine("read the blob", s.n.verify(digest.FromBytes(s.blob())))
		},
	},
	{
		name: "unpack", prepare: (*stage).lease,
		do: (*stage).unpack,
		again: func(s *stage, err error) {
			s.fine("unpack again", s.unpack(), codes.AlreadyExists)
			s.makesTasks(s.name)
		},
	},
	{
		name: "prepare of a snapshot", prepare: (*stage).lease,
		do: func(s *stage) error { return s.snapshot("base") },
		again: func(s *stage, err error) {
			if got := s.snapshot("base"); err == nil && status.Code(got) != codes.AlreadyExists {
				s.errorf("prepare again: %v", got)
			}
			s.makesTasks("base")
		},
	},
	{
		name: "create of a record", prepare: (*stage).lease,
		do: (*stage).record,
		again: func(s *stage, err error) {
			s.undo = append(s.undo, s.removeRecord)
			s.fine("create again", s.record(), codes.AlreadyExists)
			s.makesTasks("base")
		},
	},
	{
		name: "create of a task", prepare: (*stage).recorded, shim: true,
		do: (*stage).task,
		again: func(s *stage, err error) {
			if err == nil && !s.killed {
				s.taskIs("created")
			} else {
				s.removeTask()
				s.fine("create again", s.task())
			}
			s.fine("start", s.startTask())
			s.fine("exec", s.execTask())
		},
	},
	{
		name: "start of a task", prepare: func(s *stage) { s.recorded(); s.fine("create", s.task()) }, shim: true,
		do: (*stage).startTask,
		again: func(s *stage, err error) {
			switch {
			case s.killed:
				s.removeTask()
				s.fine("create again", s.task())
				s.fine("start", s.startTask())
			case err == nil:
				s.taskIs("running")
			default:
				s.fine("start again", s.startTask(), codes.FailedPrecondition)
			}
			s.fine("exec", s.execTask())
		},
	},
	{
		name: "exec in a task", prepare: (*stage).taskRuns, shim: true,
		do: (*stage).execTask,
		again: func(s *stage, err error) {
			if s.killed {
				s.exits(137)
				return
			}
			s.taskIs("running")
			_, gone := s.n.tasks.DeleteProcess(in(ours), &tasksapi.DeleteProcessRequest{ContainerID: s.name, ExecID: "e"})
			s.fine("delete the exec", gone, codes.NotFound, codes.FailedPrecondition)
			if status.Code(gone) == codes.FailedPrecondition { // it ends by itself
				_, err := s.n.tasks.Wait(in(ours), &tasksapi.WaitRequest{ContainerID: s.name, ExecID: "e"})
				s.fine("wait for the exec", err)
				_, err = s.n.tasks.DeleteProcess(in(ours), &tasksapi.DeleteProcessRequest{ContainerID: s.name, ExecID: "e"})
				s.fine("delete the exec", err)
			}
			s.fine("exec again", s.execTask())
		},
	},
	{
		name: "handover of a shim", prepare: (*stage).taskRuns, shim: true, alone: true,
		do: (*stage).handOver,
		again: func(s *stage, err error) {
			if s.killed {
				s.exits(137)
				return
			}
			if err != nil { // the program was killed on trial, and the one before goes on
				s.fine("hand over again", s.handOver())
			}
			s.taskIs("running")
			s.fine("exec", s.execTask())
		},
	},
	{
		name: "kill of a task", prepare: (*stage).taskRuns, shim: true,
		do: func(s *stage) error { return s.killTask() },
		again: func(s *stage, _ error) {
			s.fine("kill again", s.killTask(), codes.NotFound, codes.FailedPrecondition)
			s.exits(137)
		},
	},
	{
		name: "delete of a task", prepare: func(s *stage) { s.taskRuns(); s.fine("kill", s.killTask()); s.exits(137) }, shim: true,
		do: func(s *stage) error { return s.deleteTask(0) },
		again: func(s *stage, err error) {
			if err == nil {
				s.taskIs("gone")
			} else {
				s.fine("delete again", s.deleteTask(137), codes.NotFound)
			}
			s.fine("create the next", s.task())
			s.fine("start", s.startTask())
			s.fine("exec", s.execTask())
		},
	},
	{
		name: "collection", prepare: func(s *stage) {
			s.lease()
			s.fine("write", s.ingest())
			s.fine("unpack", s.unpack())
			s.fine("prepare", s.snapshot(s.name))
		},
		do: func(s *stage) error { return s.removeLease() },
		again: func(s *stage, err error) {
			s.fine("delete the lease again", s.removeLease(), codes.NotFound)
			if kept := s.n.verify(digest.FromBytes(s.blob())); err == nil && status.Code(kept) != codes.NotFound {
				s.errorf("the blob is there after its collection: %v", kept)
			}
		},
	},
	{
		name: "transfer from a registry", prepare: (*stage).pushed,
		do: (*stage).transferHere,
		again: func(s *stage, err error) {
			if err != nil {
				s.fine("transfer again", s.transferHere())
			}
			s.makesTasks(s.chain)
			_, err = s.n.images.Delete(in(ours), &imagesapi.DeleteImageRequest{Name: s.registry.Addr + "/" + s.name + ":latest"})
			s.fine("remove image", err)
		},
	},
	{
		name: "create of an image", prepare: func(s *stage) { s.lease(); s.fine("write", s.ingest()) },
		do: (*stage).image,
		again: func(s *stage, err error) {
			s.undo = append(s.undo, func() {
				_, err := s.n.images.Delete(in(ours), &imagesapi.DeleteImageRequest{Name: s.name})
				s.fine("remove image", err)
			})
			s.fine("create again", s.image(), codes.AlreadyExists)
			s.fine("delete the lease", s.removeLease())
			s.fine("read the blob", s.n.verify(digest.FromBytes(s.blob())))
		},
	},
}

// fine fails the test where an answer is an error, other than one of the codes.
func (s *stage) fine(what string, err error, allowed ...codes.Code) {
	s.t.Helper()
	if err != nil && !slices.Contains(allowed, status.Code(err)) {
		s.errorf("%s: %v", what, err)
	}
}

// lease keeps what the stage makes.
func (s *stage) lease() {
	_, err := s.n.leases.Create(in(ours), &leasesapi.CreateRequest{ID: s.name})
	s.fine("make lease", err)
	name := s.name
	s.undo = append(s.undo, func() {
		_, err := s.n.leases.Delete(in(ours), &leasesapi.DeleteRequest{ID: name})
		s.fine("remove lease", err, codes.NotFound)
	})
}

func (s *stage) removeLease() error {
	_, err := s.n.leases.Delete(in(ours), &leasesapi.DeleteRequest{ID: s.name, Sync: true})
	return err
}

func (s *stage) blob() []byte { return []byte(strings.Repeat(s.name+" ", 10000)) }

// ingest writes a blob, or goes on where it was cut off.
func (s *stage) ingest() error {
	return s.n.write(in(ours, "containerd-lease", s.name), s.name, s.blob(), nil)
}

// unpack makes the snapshot of the stage's name of the busybox layer, by a key that
// the next try takes away first, as clients do.
func (s *stage) unpack() error {
	layer, desc := s.n.layer()
	ctx := in(ours, "containerd-lease", s.name)
	if err := s.n.write(ctx, s.name+"layer", layer, nil); err != nil && status.Code(err) != codes.AlreadyExists {
		return err
	}
	key := s.name + "-extract"
	_, err := s.n.snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: key})
	if err != nil && status.Code(err) != codes.NotFound {
		return err
	}
	r, err := s.n.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: key})
	if err == nil {
		_, err = s.n.diff.Apply(ctx, &diffapi.ApplyRequest{Diff: desc, Mounts: r.Mounts})
	}
	if err == nil {
		_, err = s.n.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: s.name, Key: key})
	}
	if status.Code(err) == codes.AlreadyExists { // another try got there first
		_, rerr := s.n.snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: key})
		s.fine("remove the second copy", rerr)
	}
	return err
}

// transferHere pulls the image that is in the registry, without a lease.
func (s *stage) transferHere() error {
	ref := s.registry.Addr + "/" + s.name + ":latest"
	from, err := typeurl.MarshalAnyToProto(&transfertypes.OCIRegistry{Reference: ref})
	if err != nil {
		return err
	}
	to, err := typeurl.MarshalAnyToProto(&transfertypes.ImageStore{Name: ref, Unpacks: []*transfertypes.UnpackConfiguration{{Snapshotter: "overlayfs"}}})
	if err == nil {
		_, err = s.n.transfer.Transfer(in(ours), &transferapi.TransferRequest{Source: from, Destination: to})
	}
	return err
}

func (s *stage) snapshot(parent string) error {
	_, err := s.n.snapshots.Prepare(in(ours, "containerd-lease", s.name), &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: s.name + "rw", Parent: parent})
	return err
}

func (s *stage) record() error {
	k := s.n.container(s.name)
	k.ID, k.SnapshotKey, k.Labels = s.name, s.name+"rw", nil
	_, err := s.n.containers.Create(in(ours), &containersapi.CreateContainerRequest{Container: k})
	return err
}

func (s *stage) removeRecord() {
	s.removeTask()
	_, err := s.n.containers.Delete(in(ours), &containersapi.DeleteContainerRequest{ID: s.name})
	s.fine("remove record", err)
}

// recorded is a container with a snapshot, and no task.
func (s *stage) recorded() {
	s.name += "r" // runs on: see ends
	s.lease()
	s.fine("prepare", s.snapshot("base"))
	s.fine("record", s.record())
	s.undo = append(s.undo, s.removeRecord)
}

func (s *stage) task() error {
	r, err := s.n.snapshots.Mounts(in(ours), &snapshotsapi.MountsRequest{Snapshotter: "overlayfs", Key: s.name + "rw"})
	if err == nil {
		_, err = s.n.tasks.Create(in(ours), &tasksapi.CreateTaskRequest{ContainerID: s.name, Rootfs: r.Mounts})
	}
	return err
}

func (s *stage) startTask() error {
	_, err := s.n.tasks.Start(in(ours), &tasksapi.StartRequest{ContainerID: s.name})
	return err
}

func (s *stage) taskRuns() {
	s.recorded()
	s.fine("create", s.task())
	s.fine("start", s.startTask())
}

// handOver has the task's shim hand itself over. Where the shim is killed, whoever
// asked is told that the connection has ended.
func (s *stage) handOver() error {
	address, err := os.ReadFile(filepath.Join(s.daemon.State, "containerd", "io.containerd.runtime.v2.task", ours, s.name, "address"))
	if err != nil {
		return err
	}
	conn, err := net.Dial("unix", strings.TrimPrefix(string(address), "unix://"))
	if err != nil {
		return err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	return client.Call(context.Background(), "gantry.shim.v1.Shim", "Upgrade", &emptypb.Empty{}, &emptypb.Empty{})
}

func (s *stage) killTask() error {
	_, err := s.n.tasks.Kill(in(ours), &tasksapi.KillRequest{ContainerID: s.name, Signal: 9})
	return err
}

// deleteTask deletes the task, which ended with code, or with any for 0.
func (s *stage) deleteTask(code uint32) error {
	r, err := s.n.tasks.Delete(in(ours), &tasksapi.DeleteTaskRequest{ContainerID: s.name})
	if err == nil && code != 0 && r.ExitStatus != code {
		s.errorf("the task was deleted with exit %d, and ended with %d", r.ExitStatus, code)
	}
	return err
}

// removeTask ends the task, if there is one, and takes it away.
func (s *stage) removeTask() {
	s.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		s.fine("kill", s.killTask(), codes.NotFound, codes.FailedPrecondition, codes.Unavailable)
		if err = s.deleteTask(0); err == nil || status.Code(err) == codes.NotFound {
			return
		}
	}
	s.errorf("remove task: %v", err)
}

func (s *stage) taskIs(want string) {
	s.t.Helper()
	if state, err := s.n.look("task", s.name); err != nil || state != want {
		s.errorf("the task is %s (%v), and was to be %s", state, err, want)
	}
}

// exits waits for the end of the task, twice, which is told the same.
func (s *stage) exits(code uint32) {
	s.t.Helper()
	for range 2 {
		r, err := again(func() (*tasksapi.WaitResponse, error) {
			return s.n.tasks.Wait(in(ours), &tasksapi.WaitRequest{ContainerID: s.name})
		})
		if err != nil || r.ExitStatus != code {
			s.errorf("the task exited with %d (%v), and was to with %d", r.GetExitStatus(), err, code)
		}
	}
}

// execTask runs a program beside, to its end.
func (s *stage) execTask() error {
	_, err := s.n.tasks.Exec(in(ours), &tasksapi.ExecProcessRequest{ContainerID: s.name, ExecID: "e", Spec: process("exit 33")})
	if err == nil {
		_, err = s.n.tasks.Start(in(ours), &tasksapi.StartRequest{ContainerID: s.name, ExecID: "e"})
	}
	var r *tasksapi.WaitResponse
	if err == nil {
		r, err = s.n.tasks.Wait(in(ours), &tasksapi.WaitRequest{ContainerID: s.name, ExecID: "e"})
	}
	if err == nil && r.ExitStatus != 33 {
		return fmt.Errorf("the exec ended with %d", r.ExitStatus)
	}
	if err == nil {
		_, err = s.n.tasks.DeleteProcess(in(ours), &tasksapi.DeleteProcessRequest{ContainerID: s.name, ExecID: "e"})
	}
	return err
}

// image names the stage's blob.
func (s *stage) image() error {
	_, desc := s.n.layer()
	data := s.blob()
	desc.Digest, desc.Size = digest.FromBytes(data).String(), int64(len(data))
	_, err := s.n.images.Create(in(ours), &imagesapi.CreateImageRequest{Image: &imagesapi.Image{Name: s.name, Target: desc}})
	return err
}

// makesTasks proves that a snapshot is whole: a task of it runs.
func (s *stage) makesTasks(parent string) {
	s.t.Helper()
	was := s.name
	s.name += "proof"
	s.lease()
	s.fine("prepare on "+parent, s.snapshot(parent))
	s.fine("record", s.record())
	s.fine("create", s.task())
	s.fine("start", s.startTask())
	s.fine("exec", s.execTask())
	s.removeRecord()
	s.name = was
}
