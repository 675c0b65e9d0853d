package lifecycle_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	mountsapi "github.com/containerd/containerd/api/services/mounts/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"google.golang.org/grpc/codes"
)

// Temporary mounts are made, found by the next daemon, and taken away; a failed
// activation, or one that was cut off, leaves nothing.
func TestTemporaryMountsComeAndGo(t *testing.T) {
	d := newDaemon(t)
	stop := d.startOurs(t)
	a, ctx := d.dial(t), in("ns")
	mounts := mountsapi.NewMountsClient(a)
	one, two := filepath.Join(d.dir, "one"), filepath.Join(d.dir, "two")
	for _, dir := range []string{one, two} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Base(dir)), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bind := func(dir string) *types.Mount {
		return &types.Mount{Type: "bind", Source: dir, Options: []string{"rbind", "ro"}}
	}
	activate := func(name string, temporary bool, ms ...*types.Mount) (*types.ActivationInfo, error) {
		r, err := mounts.Activate(ctx, &mountsapi.ActivateRequest{Name: name, Mounts: ms, Temporary: temporary, Labels: map[string]string{"a": "b"}})
		return r.GetInfo(), err
	}
	ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "kept"}))(t)
	ctx = in("ns", "containerd-lease", "kept") // by nothing, it would end when garbage is collected
	_, err := activate("m", false, bind(one))
	wantCode(t, codes.Unimplemented, err) // the client mounts it itself
	if _, err = activate("m", true, bind(one), bind("/no/such/dir")); err == nil {
		t.Error("what is not there was mounted")
	}
	if left := mountsBelow(t, d.state()); len(left) > 0 {
		t.Errorf("a failed activation left %v", left)
	}
	info := ok(activate("m", true, bind(one), bind(two)))(t)
	if len(info.Active) != 2 {
		t.Fatalf("active: %v", info.Active)
	}
	for i, name := range []string{"one", "two"} {
		if _, err := os.Stat(filepath.Join(info.Active[i].MountPoint, name)); err != nil {
			t.Error(err)
		}
	}
	if s := info.System; len(s) != 1 || s[0].Type != "bind" || s[0].Source != info.Active[1].MountPoint {
		t.Errorf("left to the client: %v", s)
	}
	_, err = activate("m", true, bind(one))
	wantCode(t, codes.AlreadyExists, err)

	stop()
	cut := filepath.Join(d.state(), "mounts/ns/cut")
	if err := os.MkdirAll(filepath.Join(cut, "0"), 0o700); err != nil {
		t.Fatal(err)
	}
	defer d.startOurs(t)()
	if _, err := os.Stat(cut); err == nil {
		t.Error("an activation that was cut off is left")
	}
	if got := ok(mounts.Info(ctx, &mountsapi.InfoRequest{Name: "m"}))(t).Info; got.Labels["a"] != "b" || len(got.Active) != 2 || !got.Active[0].MountedAt.IsValid() {
		t.Errorf("info: %v", got)
	}
	for filter, want := range map[string]int{"name==m": 1, "labels.a==c": 0} {
		s := ok(mounts.List(ctx, &mountsapi.ListRequest{Filters: []string{filter}}))(t)
		n := 0
		for {
			if _, err := s.Recv(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != want {
			t.Errorf("%s: %d mounts, want %d", filter, n, want)
		}
	}
	ctx = in("ns")
	ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "l"}))(t)
	ok(mounts.Activate(in("ns", "containerd-lease", "l"), &mountsapi.ActivateRequest{Name: "leased", Mounts: []*types.Mount{bind(one)}, Temporary: true}))(t)
	_, err = mounts.Activate(in("ns", "containerd-lease", "none"), &mountsapi.ActivateRequest{Name: "unleased", Mounts: []*types.Mount{bind(one)}, Temporary: true})
	wantCode(t, codes.NotFound, err)
	ok(a.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "l", Sync: true}))(t)
	_, err = mounts.Info(ctx, &mountsapi.InfoRequest{Name: "leased"})
	wantCode(t, codes.NotFound, err)
	ok(mounts.Deactivate(ctx, &mountsapi.DeactivateRequest{Name: "m"}))(t)
	if left := mountsBelow(t, d.state()); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	_, err = mounts.Deactivate(ctx, &mountsapi.DeactivateRequest{Name: "m"})
	wantCode(t, codes.NotFound, err)
	_, err = mounts.Info(ctx, &mountsapi.InfoRequest{Name: "m"})
	wantCode(t, codes.NotFound, err)
	_, err = mounts.Update(ctx, &mountsapi.UpdateRequest{Info: info})
	wantCode(t, codes.NotFound, err)
}

// What a label names keeps an activation, and labels change.
func TestAnActivationIsKeptByWhatItsLabelsName(t *testing.T) {
	d := newDaemon(t)
	defer d.startOurs(t)()
	a, ctx := d.dial(t), in("ns")
	mounts := mountsapi.NewMountsClient(a)
	ok(a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: container("c", nil)}))(t)
	blob := ok(a.write(ctx, "blob", []byte("blob"), map[string]string{"containerd.io/gc.root": "1"}))(t)
	ok(a.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{
		Snapshotter: "overlayfs", Key: "k", Labels: map[string]string{"containerd.io/gc.root": "1"},
	}))(t)
	for name, labels := range map[string]map[string]string{
		"by-container": {"containerd.io/gc.bref.container": "c"},
		"by-content":   {"containerd.io/gc.bref.content.a": blob.String()},
		"by-snapshot":  {"containerd.io/gc.bref.snapshot.overlayfs": "k"},
		"by-nothing":   {"containerd.io/gc.bref.container": "none", "other": "c"},
	} {
		ok(mounts.Activate(ctx, &mountsapi.ActivateRequest{
			Name: name, Labels: labels, Temporary: true,
			Mounts: []*types.Mount{{Type: "bind", Source: d.dir, Options: []string{"bind"}}},
		}))(t)
	}
	kept := func() (names []string) {
		s := ok(mounts.List(ctx, &mountsapi.ListRequest{}))(t)
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				slices.Sort(names)
				return names
			} else if err != nil {
				t.Fatal(err)
			}
			names = append(names, m.Info.Name)
		}
	}
	collect := func() {
		ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "l"}))(t)
		ok(a.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "l", Sync: true}))(t)
	}
	collect()
	if got := kept(); !slices.Equal(got, []string{"by-container", "by-content", "by-snapshot"}) {
		t.Errorf("kept: %v", got)
	}
	ok(a.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "c"}))(t)
	up := ok(mounts.Update(ctx, &mountsapi.UpdateRequest{
		Info: &types.ActivationInfo{Name: "by-content", Labels: map[string]string{"a": "b"}}, UpdateMask: mask("labels"),
	}))(t).Info
	wantLabels(t, up.Labels, "a=b")
	_, err := mounts.Update(ctx, &mountsapi.UpdateRequest{Info: &types.ActivationInfo{Name: "by-snapshot"}, UpdateMask: mask("active")})
	wantCode(t, codes.InvalidArgument, err)
	collect()
	if got := kept(); !slices.Equal(got, []string{"by-snapshot"}) {
		t.Errorf("kept: %v", got)
	}
	ok(a.snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: "k"}))(t)
	collect()
	if got := kept(); len(got) > 0 {
		t.Errorf("kept: %v", got)
	}
}

// A task's root filesystem may be of mounts that only lifecycle can make: they end
// with it, whatever becomes of it.
func TestTheMountsOfATaskEndWithIt(t *testing.T) {
	w := newWorld(t)
	stop := w.startOurs(t)
	mounts := mountsapi.NewMountsClient(w)
	root := []*types.Mount{
		{Type: "mkfs/loop", Source: filepath.Join(w.root(), "disk"), Options: []string{"X-containerd.mkfs.size=16MiB"}},
		{Type: "format/ext4", Source: "{{ mount 0 }}"},
		{Type: "format/mkdir/overlay", Source: "overlay", Options: []string{
			"X-containerd.mkdir.path={{ mount 1 }}/upper:0755", "X-containerd.mkdir.path={{ mount 1 }}/work",
			"lowerdir=" + w.rootfs, "upperdir={{ mount 1 }}/upper", "workdir={{ mount 1 }}/work",
		}},
	}
	record := func(id, script string) {
		c := container(id, nil)
		c.Spec = w.spec(t, id, script)
		ok(w.containers.Create(w.ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
	}
	ended := func(id string) {
		t.Helper()
		_, err := mounts.Info(w.ctx, &mountsapi.InfoRequest{Name: id})
		wantCode(t, codes.NotFound, err)
		if left := mountsBelow(t, filepath.Join(w.state(), "mounts")); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
		// The kernel takes a device away when the last of it is closed, a little later.
		eventually(t, "no loop device is left", func() error {
			for _, file := range globbed(t, "/sys/block/loop*/loop/backing_file") {
				if data, _ := os.ReadFile(file); strings.HasPrefix(string(data), w.root()) {
					return fmt.Errorf("%s is of %s", file, data)
				}
			}
			return nil
		})
	}
	record("wrong", "true")
	_, err := w.tasks.Create(w.ctx, &tasksapi.CreateTaskRequest{ContainerID: "wrong", Rootfs: append(slices.Clone(root[:2]), &types.Mount{Type: "format/none", Source: "{{ mount 7 }}"})})
	wantCode(t, codes.InvalidArgument, err)
	ended("wrong")
	for _, exit := range []uint32{137, 8} { // the disk is made once
		record("task", "[ -e /was ] && exit 8; echo > /was; exec sleep 1000")
		ok(w.tasks.Create(w.ctx, &tasksapi.CreateTaskRequest{ContainerID: "task", Rootfs: root}))(t)
		if info := ok(mounts.Info(w.ctx, &mountsapi.InfoRequest{Name: "task"}))(t).Info; len(info.Active) != 2 || len(info.System) != 1 || info.System[0].Type != "overlay" {
			t.Errorf("activated: %v", info)
		}
		_, err = w.tasks.Create(w.ctx, &tasksapi.CreateTaskRequest{ContainerID: "task", Rootfs: root})
		wantCode(t, codes.AlreadyExists, err)
		ok(w.tasks.Start(w.ctx, &tasksapi.StartRequest{ContainerID: "task"}))(t)
		stop()
		stop = w.startOurs(t)
		if exit == 137 {
			w.kill(t, "task")
		}
		if r := w.wait(t, "task"); r.ExitStatus != exit {
			t.Errorf("ended with %d, want %d", r.ExitStatus, exit)
		}
		ok(w.tasks.Delete(w.ctx, &tasksapi.DeleteTaskRequest{ContainerID: "task"}))(t)
		ended("task")
		ok(w.containers.Delete(w.ctx, &containersapi.DeleteContainerRequest{ID: "task"}))(t)
	}
	stop()
	w.nothingLeft(t, "*")
}
