package lifecycle_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	mountsapi "github.com/containerd/containerd/api/services/mounts/v1"
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
	_, err := activate("m", false, bind(one))
	wantCode(t, codes.Unimplemented, err) // the client mounts it itself
	_, err = activate("m", true, &types.Mount{Type: "format/mkdir/overlay"})
	wantCode(t, codes.Unimplemented, err)
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
	ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "l"}))(t)
	ok(mounts.Activate(in("ns", "containerd-lease", "l"), &mountsapi.ActivateRequest{Name: "leased", Mounts: []*types.Mount{bind(one)}, Temporary: true}))(t)
	ok(a.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "l"}))(t)
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
	wantCode(t, codes.Unimplemented, err)
}
