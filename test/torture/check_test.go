package torture

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/gantryd/gantry/test/rig"
)

// dieWatch listens to the engine's events through all of its lives.
type dieWatch struct {
	w    *world
	stop func()

	mu   sync.Mutex
	died map[string]map[int64]string // container to times, with the exit code
}

func newDieWatch(w *world) *dieWatch {
	ctx, cancel := context.WithCancel(context.Background())
	dw := &dieWatch{w: w, died: map[string]map[int64]string{}}
	done := make(chan struct{})
	dw.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	w.t.Cleanup(dw.stop)
	d := newDocker(w, 101)
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			dw.listen(ctx, d)
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return dw
}

// listen reads events until the daemon dies. Those that a new daemon repeats have
// the same time.
func (dw *dieWatch) listen(ctx context.Context, d *docker) {
	resp, err := d.get(ctx, `/events?since=1&filters={"type":{"container":true},"event":{"die":true}}`)
	if err != nil {
		return
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var m struct {
			Actor struct {
				ID         string
				Attributes map[string]string
			}
			TimeNano int64 `json:"timeNano"`
		}
		if dec.Decode(&m) != nil {
			return
		}
		dw.mu.Lock()
		if dw.died[m.Actor.ID] == nil {
			dw.died[m.Actor.ID] = map[int64]string{}
		}
		dw.died[m.Actor.ID][m.TimeNano] = m.Actor.Attributes["exitCode"]
		dw.mu.Unlock()
	}
}

// check proves that no container died more often than it was started, and that
// the death of each that is dead was told.
func (dw *dieWatch) check(docks []*docker) {
	for _, d := range docks {
		for _, b := range d.boxes {
			if b.id == "" || strings.HasPrefix(b.name, "phoenix") {
				continue
			}
			dw.mu.Lock()
			died := dw.died[b.id]
			dw.mu.Unlock()
			if len(died) > b.started {
				dw.w.t.Errorf("%s was started %d times and died at %v", b.name, b.started, died)
			}
			for state := range b.may {
				code, dead := strings.CutPrefix(state, "exited ")
				if dead && !slices.Contains(codesOf(died), code) {
					dw.w.t.Errorf("%s exited with %s; its deaths are %v", b.name, code, died)
				}
			}
		}
	}
}

func codesOf(died map[int64]string) (all []string) {
	for _, code := range died {
		all = append(all, code)
	}
	return all
}

// nothingLeft proves that lifecycle has nothing any more in any namespace, the
// base image aside, which it removes first.
func (c *native) nothingLeft() {
	if _, err := c.images.Delete(in(ours), &imagesapi.DeleteImageRequest{Name: "base"}); err != nil {
		c.t.Error(err)
	}
	for _, ns := range []string{ours, "moby"} {
		ctx := in(ns)
		st, err := c.content.ListStatuses(ctx, &contentapi.ListStatusesRequest{})
		if err != nil {
			c.t.Error(err)
		}
		for _, s := range st.GetStatuses() { // a client's, which it might have resumed
			if _, err := c.content.Abort(ctx, &contentapi.AbortRequest{Ref: s.Ref}); err != nil {
				c.t.Error(err)
			}
		}
		_, err = c.leases.Create(ctx, &leasesapi.CreateRequest{ID: "collect"})
		if err == nil {
			_, err = c.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "collect", Sync: true})
		}
		if err != nil {
			c.t.Error(err)
		}
		var left []string
		rig.Eventually(c.t, func() error {
			if left, err = c.list(ns); err == nil && len(left) > 0 {
				err = fmt.Errorf("left in %s: %v", ns, left)
			}
			return err
		})
	}
}

// list names all that is in a namespace.
func (c *native) list(ns string) (all []string, err error) {
	ctx := in(ns)
	containers, err := c.containers.List(ctx, &containersapi.ListContainersRequest{})
	for _, k := range containers.GetContainers() {
		all = append(all, "container "+k.ID)
	}
	tasks, terr := c.tasks.List(ctx, &tasksapi.ListTasksRequest{})
	for _, k := range tasks.GetTasks() {
		all = append(all, "task "+k.ID)
	}
	pods, perr := c.pods.List(ctx, &sandboxapi.StoreListRequest{})
	for _, k := range pods.GetList() {
		all = append(all, "sandbox "+k.SandboxID)
	}
	leases, lerr := c.leases.List(ctx, &leasesapi.ListRequest{})
	for _, k := range leases.GetLeases() {
		all = append(all, "lease "+k.ID)
	}
	images, ierr := c.images.List(ctx, &imagesapi.ListImagesRequest{})
	for _, k := range images.GetImages() {
		all = append(all, "image "+k.Name)
	}
	snaps, serr := c.snapshots.List(ctx, &snapshotsapi.ListSnapshotsRequest{Snapshotter: "overlayfs"})
	for serr == nil {
		var r *snapshotsapi.ListSnapshotsResponse
		if r, serr = snaps.Recv(); serr == nil {
			for _, k := range r.Info {
				all = append(all, "snapshot "+k.Name)
			}
		}
	}
	blobs, berr := c.content.List(ctx, &contentapi.ListContentRequest{})
	for berr == nil {
		var r *contentapi.ListContentResponse
		if r, berr = blobs.Recv(); berr == nil {
			for _, k := range r.Info {
				all = append(all, "blob "+k.Digest)
			}
		}
	}
	for _, e := range []*error{&serr, &berr} {
		if errors.Is(*e, io.EOF) || status.Code(*e) == codes.NotFound {
			*e = nil
		}
	}
	return all, errors.Join(err, terr, perr, lerr, ierr, serr, berr)
}

// checkProcesses proves that no shim is left.
func (w *world) checkProcesses() {
	rig.Eventually(w.t, func() error {
		var left []string
		for _, pid := range w.shims("") {
			cwd, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
			left = append(left, fmt.Sprintf("%d in %s", pid, cwd))
		}
		if len(left) > 0 {
			return fmt.Errorf("shims are left:\n\t%s", strings.Join(left, "\n\t"))
		}
		return nil
	})
}

// checkState proves that no bundle, fifo or socket of a container is left, on
// disk or in the state directory.
func (w *world) checkState() {
	for _, dir := range []string{w.daemon.State, filepath.Join(w.daemon.Dir, "r")} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() && !empty(path) {
				return err
			}
			if rel, _ := filepath.Rel(dir, path); !stays(rel) {
				w.t.Errorf("left: %s", path)
			}
			return nil
		})
		if err != nil {
			w.t.Error(err)
		}
	}
}

func empty(dir string) bool {
	all, err := os.ReadDir(dir)
	return err == nil && len(all) == 0
}

// stays says what an idle daemon leaves in its directories. A directory is told of
// where it is empty.
func stays(path string) bool {
	return idle.MatchString(path)
}

var idle = regexp.MustCompile(`^(a|s|fifo|roots|containers|volumes|runtime/(moby|torture)|gantryd\.lock|containerd\.sock(\.ttrpc)?|engine\.sock` +
	`|networks/([0-9a-f]{64}\.json|netns|sandboxes|forwarding-was-off)` +
	`|containerd/io\.containerd\.(content\.v1\.content/(ingest|blobs/sha256)|grpc\.v1\.introspection/uuid|metadata\.v1\.bolt/(meta\.db|reserve)` +
	`|snapshotter\.v1\.(overlayfs|native)/(metadata\.db|snapshots)|runtime\.v2\.task/(moby|torture)))$`)

// checkStores proves that the databases are whole and that nothing is on disk of
// which they do not know: by now that is everything.
func (w *world) checkStores() {
	root := filepath.Join(w.daemon.Dir, "r/containerd")
	for _, name := range []string{"io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db"} {
		db, err := bolt.Open(filepath.Join(root, name), 0o600, &bolt.Options{ReadOnly: true, Timeout: time.Second})
		if err != nil {
			w.t.Errorf("open %s: %v", name, err)
			continue
		}
		err = db.View(func(tx *bolt.Tx) (err error) {
			for e := range tx.Check() {
				err = errors.Join(err, e)
			}
			return err
		})
		if err = errors.Join(err, db.Close()); err != nil {
			w.t.Errorf("check %s: %v", name, err)
		}
	}
	for _, pattern := range []string{
		"io.containerd.content.v1.content/blobs/*/*", "io.containerd.content.v1.content/ingest/*",
		"io.containerd.snapshotter.v1.overlayfs/snapshots/*", "io.containerd.runtime.v2.task/*/*",
	} {
		if left, _ := filepath.Glob(filepath.Join(root, pattern)); len(left) > 0 {
			w.t.Errorf("left on disk: %v", left)
		}
	}
}

// checkBlobs proves that every blob on disk is what it is called.
func (w *world) checkBlobs() {
	files, err := filepath.Glob(filepath.Join(w.daemon.Dir, "r/containerd/io.containerd.content.v1.content/blobs/sha256/*"))
	if err != nil || len(files) == 0 {
		w.t.Errorf("no blobs to check: %v", err)
	}
	for _, file := range files {
		f, err := os.Open(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the collector's
		} else if err != nil {
			w.t.Error(err)
			continue
		}
		got, err := digest.FromReader(f)
		if err = errors.Join(err, f.Close()); err != nil || got.Encoded() != filepath.Base(file) {
			w.t.Errorf("blob %s has the content of %s: %v", file, got, err)
		}
	}
}
