package image

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/layer"
	"github.com/gantryd/gantry/store/snapshot"
)

// defaultLayers at the same time: the bottleneck is inflating, one goroutine for
// each layer.
const defaultLayers = 3

// job brings the layers of one manifest where they belong: their blobs into the
// content store, and where unpack is set, what is in them into snapshots.
type job struct {
	stores   Stores
	report   *reporter
	config   ocispec.Descriptor
	layers   []ocispec.Descriptor
	diffIDs  []digest.Digest
	chainIDs []digest.Digest
	from     *origin // where blobs come from; nil: all are in the content store
	unpack   bool
	max      int

	ready []chan struct{} // closed when the snapshot of the layer is committed
}

func newJob(s Stores, m ocispec.Manifest, config ocispec.Image, unpack bool) (*job, error) {
	j := &job{stores: s, config: m.Config, layers: m.Layers, unpack: unpack, max: defaultLayers}
	if !unpack {
		return j, nil
	}
	j.diffIDs = config.RootFS.DiffIDs
	if len(j.diffIDs) != len(j.layers) {
		return nil, fmt.Errorf("manifest has %d layers, its config %s names %d: %w",
			len(j.layers), m.Config.Digest, len(j.diffIDs), errdefs.ErrInvalidArgument)
	}
	for i := range j.diffIDs {
		if t := m.Layers[i].MediaType; !isLayer(t) || strings.HasSuffix(t, "+encrypted") {
			return nil, fmt.Errorf("layer %s is %q, which cannot be unpacked: %w", m.Layers[i].Digest, t, errdefs.ErrInvalidArgument)
		}
		if err := j.diffIDs[i].Validate(); err != nil {
			return nil, fmt.Errorf("config %s: diff ID %q: %w: %w", m.Config.Digest, j.diffIDs[i], err, errdefs.ErrInvalidArgument)
		}
		j.chainIDs = append(j.chainIDs, ChainID(j.diffIDs[:i+1]))
		j.ready = append(j.ready, make(chan struct{}))
	}
	return j, nil
}

// run does all layers, and then says in the config's labels that they are unpacked.
func (j *job) run(ctx context.Context) error {
	if err := j.all(ctx); err != nil {
		return err
	}
	if !j.unpack || len(j.chainIDs) == 0 {
		return nil
	}
	top := j.chainIDs[len(j.chainIDs)-1]
	return content.AddLabels(ctx, j.stores.Content, j.config, map[string]string{labelSnapshot + j.stores.snapshotter(): top.String()})
}

// all does all layers. The lowest ones begin first, so that whoever waits for its
// parent waits for one that is under way.
func (j *job) all(ctx context.Context) error {
	done, err := j.unpacked(ctx)
	if err != nil {
		return err
	}
	for i := range done {
		close(j.ready[i])
	}
	for _, l := range j.layers {
		j.report.say(l, Waiting, 0)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(j.max)
	for i := range j.layers {
		if err := ctx.Err(); err != nil {
			break
		}
		g.Go(func() error {
			var err error
			if i < done || !j.unpack {
				err = j.blob(ctx, i)
			} else {
				err = j.layer(ctx, i)
			}
			if err != nil {
				return fmt.Errorf("layer %s: %w", j.layers[i].Digest, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// unpacked counts the layers, from below, whose snapshot is there.
func (j *job) unpacked(ctx context.Context) (int, error) {
	for i := len(j.chainIDs) - 1; i >= 0; i-- {
		ok, err := j.exists(ctx, i)
		if ok || err != nil {
			return i + 1, err
		}
	}
	return 0, nil
}

func (j *job) exists(ctx context.Context, i int) (bool, error) {
	_, err := j.stores.Snapshots.Stat(ctx, j.chainIDs[i].String())
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// blob brings only the blob of layer i into the content store.
func (j *job) blob(ctx context.Context, i int) error {
	src, err := j.open(ctx, j.layers[i])
	if err != nil {
		return err
	}
	defer src.Close()
	if !src.stored() {
		j.report.final(j.layers[i], Exists)
		return nil
	}
	if err := src.receive(ctx, nil); err != nil {
		return err
	}
	if err := src.commit(ctx); err != nil {
		return err
	}
	j.report.final(j.layers[i], Done)
	return nil
}

// layer brings layer i into its snapshot, and its blob into the content store.
func (j *job) layer(ctx context.Context, i int) error {
	done, err := j.stores.Flights.take(ctx, j.stores.snapshotter()+" "+j.chainIDs[i].String())
	if err != nil {
		return err
	}
	defer done()
	if ok, err := j.exists(ctx, i); err != nil {
		return err
	} else if ok { // by whom we waited for
		if err := j.blob(ctx, i); err != nil {
			return err
		}
		close(j.ready[i])
		return nil
	}
	if err := j.extract(ctx, i); err != nil {
		return err
	}
	labels := map[string]string{labelUncompressed: j.diffIDs[i].String()}
	if err := content.AddLabels(ctx, j.stores.Content, j.layers[i], labels); err != nil {
		return err
	}
	j.report.final(j.layers[i], Done)
	close(j.ready[i])
	return nil
}

// wait waits until the parent of layer i is committed.
func (j *job) wait(ctx context.Context, i int) error {
	if i == 0 {
		return nil
	}
	select {
	case <-j.ready[i-1]:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// parent names the snapshot below layer i, empty for the lowest.
func (j *job) parent(i int) string {
	if i == 0 {
		return ""
	}
	return j.chainIDs[i-1].String()
}

// extract fetches and extracts layer i in one pass. A snapshotter that can rebase
// lets it begin before its parent is there.
func (j *job) extract(ctx context.Context, i int) error {
	rebaser, alone := j.stores.Snapshots.(snapshot.Rebaser)
	alone = alone && rebaser.Rebases()
	if !alone {
		if err := j.fetchWhileWaiting(ctx, i); err != nil {
			return err
		}
	}
	parent := j.parent(i)
	if alone {
		parent = ""
	}
	key := uniqueRef("extract") + " " + j.chainIDs[i].String()
	mounts, err := j.stores.Snapshots.Prepare(ctx, key, parent, nil)
	if err != nil {
		return err
	}
	t := task{job: j, index: i, key: key, mounts: mounts, alone: alone}
	if err = t.unpack(ctx); err == nil {
		err = j.wait(ctx, i)
	}
	if err == nil && alone {
		if err = t.inherit(ctx); err == nil {
			err = rebaser.CommitOnto(ctx, j.chainIDs[i].String(), key, j.parent(i), nil)
		}
	} else if err == nil {
		err = j.stores.Snapshots.Commit(ctx, j.chainIDs[i].String(), key, nil)
	}
	if err == nil {
		return nil
	}
	// The undo must work where ctx was the reason.
	rerr := j.stores.Snapshots.Remove(context.WithoutCancel(ctx), key)
	if errdefs.IsAlreadyExists(err) { // another process was faster
		err = nil
	}
	if rerr != nil {
		return fmt.Errorf("remove snapshot %s: %w (after: %w)", key, rerr, err)
	}
	return err
}

// uniqueRef names something that is under way, as containerd does.
func uniqueRef(what string) string {
	return fmt.Sprintf("%s-%d-%s", what, time.Now().Nanosecond(), rand.Text()[:4])
}

// fetchWhileWaiting uses the time until the parent is there to fetch the blob.
func (j *job) fetchWhileWaiting(ctx context.Context, i int) error {
	if i == 0 {
		return nil
	}
	select {
	case <-j.ready[i-1]:
		return nil
	default:
	}
	if err := j.blob(ctx, i); err != nil {
		return err
	}
	return j.wait(ctx, i)
}

// inherit completes the directories that the layer went through without an entry.
func (t *task) inherit(ctx context.Context) (err error) {
	if len(t.implicit) == 0 || t.index == 0 {
		return nil
	}
	snapshots := t.job.stores.Snapshots
	view := t.key + " parent"
	parent, err := snapshots.View(ctx, view, t.job.parent(t.index), nil)
	if err != nil {
		return err
	}
	defer func() {
		if rerr := snapshots.Remove(context.WithoutCancel(ctx), view); err == nil {
			err = rerr
		}
	}()
	return layer.Inherit(t.mounts, t.implicit, parent)
}
