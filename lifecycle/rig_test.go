package lifecycle_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/gantryd/gantry/lifecycle"
)

// daemon is where a daemon keeps its things, ours or containerd's.
type daemon struct {
	dir     string
	address string
}

func newDaemon(t testing.TB) daemon {
	t.Helper()
	// Not t.TempDir: the path of a socket has at most 107 bytes.
	dir, err := os.MkdirTemp("", "lc")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		mounts := mountsBelow(t, dir)
		if len(mounts) > 0 {
			t.Errorf("left mounted: %v", mounts)
		}
		for _, point := range slices.Backward(mounts) { // else RemoveAll would eat what is mounted
			if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
				t.Fatalf("unmount %s: %v", point, err)
			}
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return daemon{dir: dir, address: filepath.Join(dir, "c.sock")}
}

func mountsBelow(t testing.TB, dir string) (below []string) {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); strings.HasPrefix(f[4], dir+"/") {
			below = append(below, f[4])
		}
	}
	return below
}

func (d daemon) root() string  { return filepath.Join(d.dir, "r") }
func (d daemon) state() string { return filepath.Join(d.dir, "s") }

func (d daemon) config() lifecycle.Config {
	return lifecycle.Config{Root: d.root(), State: d.state(), Address: d.address, Log: slog.New(slog.DiscardHandler)}
}

// serve runs a lifecycle until ctx ends.
func (d daemon) serve(ctx context.Context, cfg lifecycle.Config) error {
	l, err := lifecycle.New(ctx, cfg)
	if err != nil {
		return err
	}
	var sockets []net.Listener
	for _, path := range []string{d.address, d.address + ".ttrpc"} {
		os.Remove(path)
		s, err := net.Listen("unix", path)
		if err != nil {
			return errors.Join(err, l.Close())
		}
		sockets = append(sockets, s)
	}
	return errors.Join(l.Serve(ctx, sockets[0], sockets[1]), l.Close())
}

// startOurs starts a lifecycle in this process; stop ends it and waits.
func (d daemon) startOurs(t testing.TB) (stop func()) {
	t.Helper()
	return d.startConfigured(t, d.config())
}

func (d daemon) startConfigured(t testing.TB, cfg lifecycle.Config) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.serve(ctx, cfg) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		done <- nil // may be called again
	}
	t.Cleanup(stop)
	d.await(t)
	return stop
}

// within starts a lifecycle in this process without a socket for clients.
func (d daemon) within(t testing.TB) *api {
	t.Helper()
	l, err := lifecycle.New(context.Background(), d.config())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return on(l.Conn())
}

// startTheirs starts Debian's containerd.
func (d daemon) startTheirs(t testing.TB) (stop func()) {
	t.Helper()
	return d.startStock(t, peer(t, "containerd"))
}

// startStock starts a containerd.
func (d daemon) startStock(t testing.TB, program string) (stop func()) {
	t.Helper()
	config := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\n  address = %q\n[ttrpc]\n  address = %q\n",
		d.root(), d.state(), d.address, d.address+".ttrpc")
	if err := os.WriteFile(filepath.Join(d.dir, "config.toml"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return d.startProcess(t, exec.Command(program, "-c", filepath.Join(d.dir, "config.toml")))
}

func (d daemon) startProcess(t testing.TB, cmd *exec.Cmd) (stop func()) {
	t.Helper()
	log, err := os.CreateTemp(d.dir, "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = func() {
		if cmd.ProcessState != nil {
			return
		}
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if t.Failed() {
			data, _ := os.ReadFile(log.Name())
			t.Logf("%s says:\n%.8000s", cmd.Path, data)
		}
	}
	t.Cleanup(stop)
	d.await(t)
	return stop
}

// peer is a program from Debian that the test needs.
func peer(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs %s (Debian: containerd, runc, busybox-static): %v", name, err)
	}
	return path
}

func (d daemon) await(t testing.TB) {
	t.Helper()
	eventually(t, "daemon answers", func() error {
		c, err := net.Dial("unix", d.address)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// eventually waits until check has no complaint.
func eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: not in a minute: %v", what, err)
}

// api is a client of a daemon with every service of the contract.
type api struct {
	grpc.ClientConnInterface
	containers    containersapi.ContainersClient
	content       contentapi.ContentClient
	diff          diffapi.DiffClient
	events        eventsapi.EventsClient
	images        imagesapi.ImagesClient
	introspection introspectionapi.IntrospectionClient
	leases        leasesapi.LeasesClient
	namespaces    namespacesapi.NamespacesClient
	snapshots     snapshotsapi.SnapshotsClient
	tasks         tasksapi.TasksClient
	version       versionapi.VersionClient
}

func (d daemon) dial(t testing.TB) *api {
	t.Helper()
	// A daemon that was killed is back soon.
	soon := grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 10 * time.Millisecond, Multiplier: 1.2, MaxDelay: 50 * time.Millisecond}, MinConnectTimeout: time.Second}
	conn, err := grpc.NewClient(
		"unix:"+d.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(soon), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return on(conn)
}

func on(conn grpc.ClientConnInterface) *api {
	return &api{
		conn, containersapi.NewContainersClient(conn), contentapi.NewContentClient(conn), diffapi.NewDiffClient(conn),
		eventsapi.NewEventsClient(conn), imagesapi.NewImagesClient(conn), introspectionapi.NewIntrospectionClient(conn),
		leasesapi.NewLeasesClient(conn), namespacesapi.NewNamespacesClient(conn), snapshotsapi.NewSnapshotsClient(conn),
		tasksapi.NewTasksClient(conn), versionapi.NewVersionClient(conn),
	}
}

// in is a context of a request in namespace ns, with further pairs of metadata.
func in(ns string, pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), append([]string{"containerd-namespace", ns}, pairs...)...)
}

// listen subscribes to events, and returns when the daemon tells of them: with
// containerd only an event of that topic, which the filter lets through, shows it.
func (a *api) listen(t testing.TB, ctx context.Context, topic, filter string) (recv func() *types.Envelope) {
	t.Helper()
	s := ok(a.events.Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: []string{filter}}))(t)
	probe := ok(typeurl.MarshalAnyToProto(&events.TaskExit{ContainerID: "probe"}))(t)
	listens := make(chan struct{})
	var probing sync.WaitGroup
	probing.Go(func() {
		for {
			a.events.Publish(ctx, &eventsapi.PublishRequest{Topic: topic, Event: probe})
			select {
			case <-listens:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
	_, err := s.Recv()
	close(listens)
	probing.Wait()
	if err != nil {
		t.Fatal(err)
	}
	return func() *types.Envelope {
		t.Helper()
		for {
			if e := ok(s.Recv())(t); !bytes.Equal(e.Event.Value, probe.Value) {
				return e
			}
		}
	}
}

// write writes a blob in one stream.
func (a *api) write(ctx context.Context, ref string, data []byte, labels map[string]string) (digest.Digest, error) {
	dgst := digest.FromBytes(data)
	s, err := a.content.Write(ctx)
	if err != nil {
		return dgst, err
	}
	err = s.Send(&contentapi.WriteContentRequest{
		Action: contentapi.WriteAction_COMMIT, Ref: ref, Total: int64(len(data)), Expected: dgst.String(), Data: data, Labels: labels,
	})
	if err != nil && !errors.Is(err, io.EOF) { // else Recv has the reason
		return dgst, err
	}
	if _, err = s.Recv(); err != nil {
		return dgst, err
	}
	return dgst, s.CloseSend()
}

// blobs lists the digests of the namespace's blobs.
func (a *api) blobs(ctx context.Context, filters ...string) (all []string, err error) {
	s, err := a.content.List(ctx, &contentapi.ListContentRequest{Filters: filters})
	if err != nil {
		return nil, err
	}
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			slices.Sort(all)
			return all, nil
		} else if err != nil {
			return nil, err
		}
		for _, i := range r.Info {
			all = append(all, i.Digest)
		}
	}
}

// snapshotKeys lists the namespace's snapshots.
func (a *api) snapshotKeys(ctx context.Context, filters ...string) (all []string, err error) {
	s, err := a.snapshots.List(ctx, &snapshotsapi.ListSnapshotsRequest{Snapshotter: "overlayfs", Filters: filters})
	if err != nil {
		return nil, err
	}
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			slices.Sort(all)
			return all, nil
		} else if err != nil {
			return nil, err
		}
		for _, i := range r.Info {
			all = append(all, i.Name)
		}
	}
}

func globbed(t testing.TB, pattern string) []string {
	t.Helper()
	return ok(filepath.Glob(pattern))(t)
}

// ok gives v where err is nil, and else fails the test that it is handed.
func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantCode fails unless err has the code.
func wantCode(t testing.TB, want codes.Code, err error) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
}
