package lifecycle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
)

// A full disk is said to be one, and what was answered before is there after.
func TestAFullDiskIsSaid(t *testing.T) {
	d := newDaemon(t)
	if err := os.Mkdir(d.root(), 0o711); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", d.root(), "tmpfs", 0, "size=8m"); err != nil {
		t.Fatalf("mount a small tmpfs (needs CAP_SYS_ADMIN): %v", err)
	}
	defer func() {
		if err := unix.Unmount(d.root(), 0); err != nil {
			t.Error(err)
		}
	}()
	ballast := filepath.Join(d.root(), "ballast")
	if err := os.WriteFile(ballast, make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := d.startOurs(t)
	defer stop() // before the unmount
	a, ctx := d.dial(t), in("ns")
	create := func(n int) error {
		c := container(fmt.Sprintf("c%d", n), nil)
		c.Spec = &anypb.Any{Value: make([]byte, 200<<10)}
		_, err := a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: c})
		return err
	}
	n := 0
	var err error
	for ; err == nil && n < 100; n++ {
		err = create(n)
	}
	wantCode(t, codes.ResourceExhausted, err)
	_, err = a.write(ctx, "big", make([]byte, 4<<20), nil)
	wantCode(t, codes.ResourceExhausted, err)
	if list := ok(a.containers.List(ctx, &containersapi.ListContainersRequest{}))(t); len(list.Containers) != n-1 {
		t.Errorf("%d containers are there, want %d", len(list.Containers), n-1)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	wantCode(t, codes.OK, create(n))
	stop()

	stop = d.startOurs(t)
	defer stop()
	if list := ok(a.containers.List(ctx, &containersapi.ListContainersRequest{}))(t); len(list.Containers) != n {
		t.Errorf("%d containers are there, want %d", len(list.Containers), n)
	}
}
