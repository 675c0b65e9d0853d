package engine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	eventsapi "github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// postCommit is POST /commit: an image of what a container has become.
func (c *containers) postCommit(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.FormValue("container"))
	if err != nil {
		return err
	}
	var named reference.Named
	if repo := r.FormValue("repo"); repo != "" {
		if named, err = reference.ParseNormalizedNamed(repo); err != nil {
			return invalid("invalid reference format: %q: %w", repo, err)
		}
		if named, err = withTag(named, r.FormValue("tag")); err != nil {
			return err
		}
		named = reference.TagNameOnly(named)
	}
	var edited *container.Config
	if r.ContentLength != 0 {
		if err := readJSON(r, &edited); err != nil {
			return err
		}
	}
	id, err := c.commit(context.WithoutCancel(r.Context()), k, commitWish{
		named: named, config: edited, changes: r.URL.Query()["changes"],
		author: r.FormValue("author"), comment: r.FormValue("comment"),
		pause: r.FormValue("pause") == "" || boolValue(r, "pause"),
	})
	if err != nil {
		return err
	}
	attrs := map[string]string{"imageID": id.String()}
	if named != nil {
		attrs["imageRef"] = reference.FamiliarString(named)
	}
	c.publish(k, eventsapi.ActionCommit, attrs)
	return replyJSON(w, http.StatusCreated, container.CommitResponse{ID: id.String()})
}

type commitWish struct {
	named           reference.Named   // nil for none
	config          *container.Config // in place of the container's own; nil for that
	changes         []string          // Dockerfile instructions
	author, comment string
	pause           bool // hold the container still meanwhile
}

func (c *containers) commit(ctx context.Context, k *ctr, wish commitWish) (_ digest.Digest, err error) {
	rec := k.snapshot()
	if rec.State.Phase == removing || rec.State.Dead {
		return "", conflict("you cannot commit container %s which is being removed", k.id)
	}
	cfg := rec.Config
	if wish.config != nil {
		cfg = wish.config
	}
	config, err := imageChanges(imageConfig(cfg), wish.changes)
	if err != nil {
		return "", err
	}
	base, err := c.images.loadBase(ctx, rec)
	if err != nil {
		return "", err
	}
	ctx, done, err := c.images.lease(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	held := false
	if wish.pause && k.live() != nil && !rec.State.Paused {
		if held, err = c.holdStill(ctx, k); err != nil {
			return "", err
		}
	}
	layer, diffID, err := c.diff(ctx, k)
	if held {
		err = errors.Join(err, c.letGo(ctx, k))
	}
	if err != nil {
		return "", fmt.Errorf("commit container %s: %w", k.id, err)
	}
	return c.images.compose(ctx, layer, diffID, madeImage{
		base: base, config: config, platform: base.Image.Platform,
		comment: wish.comment, author: wish.author, by: strings.Join(cfg.Cmd, " "), named: wish.named,
	})
}

// holdStill stops the container where it is, unless it has ended. That is on disk
// before it is done: an engine that dies meanwhile does not leave it so.
func (c *containers) holdStill(ctx context.Context, k *ctr) (held bool, err error) {
	k.edit(func(r *record) { r.State.Held = true })
	if err := c.persist(ctx, k, nil); err != nil {
		return false, err
	}
	_, err = c.ctrd.Tasks.Pause(ctx, &tasksapi.PauseTaskRequest{ContainerID: k.id})
	if err == nil {
		return true, nil
	}
	k.edit(func(r *record) { r.State.Held = false })
	if errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) || errdefs.IsUnavailable(err) {
		return false, nil // it ended, or a user paused it
	}
	return false, fmt.Errorf("pause container %s: %w", k.id, err)
}

// letGo is the end of holdStill, also where the container has ended or is on again.
func (c *containers) letGo(ctx context.Context, k *ctr) error {
	_, err := c.ctrd.Tasks.Resume(context.WithoutCancel(ctx), &tasksapi.ResumeTaskRequest{ContainerID: k.id})
	k.edit(func(r *record) { r.State.Held = false })
	c.persistSoon(k)
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("unpause container %s: %w", k.id, err)
	}
	return nil
}

// diff makes a layer of what k wrote, and finds the digest that it has without
// compression.
func (c *containers) diff(ctx context.Context, k *ctr) (desc ocispec.Descriptor, diffID digest.Digest, err error) {
	snap, err := c.ctrd.Snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: c.cfg.Snapshotter, Key: k.id})
	if err != nil {
		return desc, "", err
	}
	key := fmt.Sprintf("%s-commit-%d", k.id, time.Now().UnixNano())
	var below []*types.Mount
	if parent := snap.Info.Parent; parent != "" {
		view, err := c.ctrd.Snapshots.View(ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: c.cfg.Snapshotter, Key: key, Parent: parent})
		if err != nil {
			return desc, "", err
		}
		defer func() { err = errors.Join(err, c.removeSnapshot(ctx, key)) }()
		below = view.Mounts
	}
	mounts, err := c.rootfs(ctx, k)
	if err != nil {
		return desc, "", err
	}
	resp, err := c.ctrd.Diff.Diff(ctx, &diffapi.DiffRequest{
		Left: below, Right: toAPI(mounts), MediaType: ocispec.MediaTypeImageLayerGzip, Ref: key,
	})
	if err != nil {
		return desc, "", err
	}
	desc = ocispec.Descriptor{MediaType: resp.Diff.MediaType, Digest: digest.Digest(resp.Diff.Digest), Size: resp.Diff.Size}
	info, err := c.images.stores.Content.Info(ctx, desc.Digest)
	if err != nil {
		return desc, "", err
	}
	if diffID, err = digest.Parse(info.Labels["containerd.io/uncompressed"]); err != nil {
		return desc, "", fmt.Errorf("digest of layer %s without compression: %w", desc.Digest, err)
	}
	return desc, diffID, nil
}

// loadBase is the image that a container was made from. It may have lost its name,
// but not its content: the container's snapshot stands on it.
func (i *images) loadBase(ctx context.Context, rec record) (*loaded, error) {
	target := ocispec.Descriptor{Digest: rec.ImageID}
	if rec.Manifest != nil {
		target = *rec.Manifest
	}
	base, err := i.load(ctx, target, nil)
	if errdefs.IsNotFound(err) {
		return nil, notFound("No such image: %s", rec.ImageID)
	}
	return base, err
}

// imageConfig is what of a container's config an image keeps.
func imageConfig(cfg *container.Config) dockerspec.DockerOCIImageConfig {
	out := dockerspec.DockerOCIImageConfig{}
	out.User, out.Env, out.Entrypoint, out.Cmd = cfg.User, cfg.Env, cfg.Entrypoint, cfg.Cmd
	out.WorkingDir, out.Labels, out.StopSignal = cfg.WorkingDir, cfg.Labels, cfg.StopSignal
	out.Volumes, out.Shell, out.OnBuild = cfg.Volumes, cfg.Shell, cfg.OnBuild
	for port := range cfg.ExposedPorts {
		set(&out.ExposedPorts, port.String(), struct{}{})
	}
	if h := cfg.Healthcheck; h != nil {
		out.Healthcheck = &dockerspec.HealthcheckConfig{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return out
}
