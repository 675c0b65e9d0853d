package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/moby/api/types/container"
	eventsapi "github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	dockernet "github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/gantryd/gantry/bundle/docker"
	"github.com/gantryd/gantry/internal/errs"
)

// postCreate is POST /containers/create.
func (c *containers) postCreate(w http.ResponseWriter, r *http.Request) error {
	begin := time.Now()
	var req container.CreateRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	if req.Config == nil {
		return invalid("config cannot be empty in order to create a container")
	}
	if req.HostConfig == nil {
		req.HostConfig = &container.HostConfig{}
	}
	platform, err := parsePlatform(r.FormValue("platform"))
	if err != nil {
		return err
	}
	id := newID()
	j := c.journal(r, id)
	k, warnings, err := c.create(context.WithoutCancel(r.Context()), id, r.FormValue("name"), platform, req, j)
	if err != nil {
		return err
	}
	if j != nil {
		j.since("POST /containers/create", begin)
	}
	return replyJSON(w, http.StatusCreated, container.CreateResponse{ID: k.id, Warnings: warnings})
}

func parsePlatform(s string) (*ocispec.Platform, error) {
	if s == "" {
		return nil, nil
	}
	p, err := platforms.Parse(s)
	if err != nil {
		return nil, invalid("invalid platform %q: %w", s, err)
	}
	return &p, nil
}

// create makes a container that is not started, or leaves nothing behind.
func (c *containers) create(ctx context.Context, id, name string, platform *ocispec.Platform, req container.CreateRequest, j *journal) (_ *ctr, warnings []string, err error) {
	done := j.step("resolve image")
	img, err := c.images.resolve(ctx, req.Image, platform)
	done()
	if err != nil {
		return nil, nil, err
	}
	if name == "" {
		name, err = c.reserveRandom(id)
	} else {
		err = c.reserve(name, id)
	}
	if err != nil {
		return nil, nil, err
	}
	name = strings.TrimPrefix(name, "/")
	defer errs.Undo(&err, func() error { c.release(name, id); return nil })

	rec, warnings, err := c.newRecord(id, name, img, req)
	if err != nil {
		return nil, nil, err
	}
	defer errs.Undo(&err, func() error { c.releaseLabels(rec); return nil })
	k := newCtr(id, rec)
	// The record comes first: it keeps the snapshot from garbage collection.
	done = j.step("containers.Create")
	spec, ready := c.earlySpec(id, rec, img)
	err = c.writeRecord(ctx, k, img, spec)
	done()
	if err != nil {
		return nil, nil, err
	}
	defer errs.Undo(&err, func() error { return c.erase(ctx, k, removal{volumes: true}) })
	done = j.step("snapshots.Prepare")
	k.rootfs, err = c.prepareSnapshot(ctx, id, img)
	done()
	if err != nil {
		return nil, nil, err
	}
	if err := c.makeVolumes(ctx, k); err != nil {
		return nil, nil, err
	}
	if lower := c.noteLayers(img.ChainID, k.rootfs); ready != nil && ready.lower == lower {
		k.ready = ready
	}
	c.add(k)
	c.publish(k, eventsapi.ActionCreate, nil)
	return k, warnings, nil
}

// newRecord says all that Docker will know of the container, once everything that
// can be checked without making anything is checked.
func (c *containers) newRecord(id, name string, img *resolved, req container.CreateRequest) (record, []string, error) {
	cfg, host := req.Config, req.HostConfig
	image := cfg.Image
	if err := docker.Merge(cfg, img.Image.Config); err != nil {
		return record{}, nil, err
	}
	cfg.Image = image
	warnings, err := c.settleWishes(id, cfg, host)
	if err != nil {
		return record{}, nil, err
	}
	eps, err := endpoints(cfg, host, req.NetworkingConfig)
	if err != nil {
		return record{}, nil, err
	}
	points, err := docker.Points(cfg, host, c.pointsOf)
	if err != nil {
		return record{}, nil, invalidUnlessKnown(err)
	}
	// Named before it is made, so that what is made has a record whenever the engine
	// is killed.
	for i := range points {
		if p := &points[i]; p.Type == mount.TypeVolume && p.Name == "" {
			p.Name = newID()
			set(&p.Labels, anonymousLabel, "")
		}
	}
	rt, err := c.runtimeName(host.Runtime)
	if err != nil {
		return record{}, nil, err
	}
	rec := record{
		Name: name, Created: time.Now().UTC(), Image: image, ImageID: img.Target.Digest,
		Config: cfg, HostConfig: host, Runtime: rt, Endpoints: eps, Mounts: points,
		State: state{Phase: created},
	}
	if img.Manifest.Digest != "" {
		m := img.Manifest
		rec.Manifest = &m
	}
	if host.LogConfig.Type != "none" {
		rec.LogPath = filepath.Join(c.dir(id), id+"-json.log")
	}
	if _, _, err := logLimits(host.LogConfig); err != nil {
		return record{}, nil, err
	}
	if err := c.networks.check(wish(id, rec)); err != nil {
		return record{}, nil, err
	}
	if rec.ProcessLabel, rec.MountLabel, err = c.seLinux.labels(host, c.labelsOf); err != nil {
		return record{}, nil, err
	}
	return rec, warnings, nil
}

// settleWishes checks cfg and host, and fills in what the daemon decides.
func (c *containers) settleWishes(id string, cfg *container.Config, host *container.HostConfig) (warnings []string, err error) {
	warnings, err = validate(cfg, host)
	if err != nil {
		return nil, err
	}
	if cfg.Hostname == "" {
		cfg.Hostname = id[:12]
		if host.NetworkMode.IsHost() || host.UTSMode.IsHost() {
			if cfg.Hostname, err = os.Hostname(); err != nil {
				return nil, fmt.Errorf("read the host's name: %w", err)
			}
		}
	}
	if cfg.WorkingDir != "" {
		cfg.WorkingDir = path.Clean(cfg.WorkingDir)
	}
	if host.NetworkMode == "" || host.NetworkMode.IsDefault() {
		host.NetworkMode = dockernet.NetworkBridge
	}
	if host.LogConfig.Type == "" {
		host.LogConfig.Type = "json-file"
	}
	if host.LogConfig.Config == nil {
		host.LogConfig.Config = map[string]string{}
	}
	if host.RestartPolicy.Name == "" {
		host.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if host.Runtime == "" {
		host.Runtime = c.cfg.Runtime
	}
	if n := host.PidsLimit; n != nil && *n <= 0 {
		host.PidsLimit = nil
	}
	if n := host.MemorySwappiness; n != nil && *n == -1 {
		host.MemorySwappiness = nil
	}
	docker.Defaults(host)
	if err := c.checkCgroupParent(host.CgroupParent); err != nil {
		return nil, err
	}
	// What would refuse the start refuses the create.
	if _, err := docker.Container(cfg, host); err != nil {
		return nil, invalidUnlessKnown(err)
	}
	return warnings, nil
}

// invalidUnlessKnown is err as a bad request, unless its kind says otherwise.
func invalidUnlessKnown(err error) error {
	if statusOf(err) == http.StatusInternalServerError {
		return invalid("%w", err)
	}
	return err
}

// endpoints gives the networks that a container wishes to join, by name.
func endpoints(cfg *container.Config, host *container.HostConfig, nc *dockernet.NetworkingConfig) (map[string]*dockernet.EndpointSettings, error) {
	eps := map[string]*dockernet.EndpointSettings{}
	mode := host.NetworkMode
	if nc != nil {
		for name, ep := range nc.EndpointsConfig {
			if ep == nil {
				ep = &dockernet.EndpointSettings{}
			}
			if name == dockernet.NetworkDefault {
				name = dockernet.NetworkBridge
			}
			eps[name] = ep
		}
	}
	if mode.IsContainer() && len(eps) > 0 {
		return nil, invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	if !mode.IsContainer() && eps[mode.NetworkName()] == nil {
		eps[mode.NetworkName()] = &dockernet.EndpointSettings{}
	}
	return eps, nil
}

// writeRecord makes the containerd container.
func (c *containers) writeRecord(ctx context.Context, k *ctr, img *resolved, spec *anypb.Any) error {
	ext, err := k.rec.any()
	if err != nil {
		return err
	}
	options, err := runtimeOptions(k.rec, Cgroupfs)
	if err != nil {
		return err
	}
	_, err = c.ctrd.Containers.Create(ctx, &containersapi.CreateContainerRequest{Container: &containersapi.Container{
		ID: k.id, Image: img.Name, Labels: recordLabels(k.rec.Config.Labels),
		Runtime:     &containersapi.Container_Runtime{Name: k.rec.Runtime, Options: options},
		Spec:        spec,
		Snapshotter: c.cfg.Snapshotter, SnapshotKey: k.id,
		Extensions: map[string]*anypb.Any{recordKey: ext},
	}})
	if err != nil {
		return fmt.Errorf("make container %s: %w", k.id, err)
	}
	return nil
}

// maxLabel is the most that containerd takes for a label and its value, in bytes.
const maxLabel = 4096

// recordLabels are Docker's labels as far as containerd can hold them. They are
// there for ctr's filters; the record has all of them.
func recordLabels(labels map[string]string) map[string]string {
	ls := map[string]string{}
	for k, v := range labels {
		if k != "" && len(k)+len(v) <= maxLabel {
			ls[k] = v
		}
	}
	return ls
}

// pointsOf answers docker.Points for --volumes-from.
func (c *containers) pointsOf(ref string) ([]docker.Point, error) {
	k, err := c.find(ref)
	if err != nil {
		return nil, invalid("%w", err) // 404 would say that the image is missing
	}
	return slices.Clone(k.snapshot().Mounts), nil
}

// newID makes a container's ID. One of digits alone in its short form could be
// taken for a process ID by old programs, as a host name, and is not used.
func newID() string {
	for {
		var b [32]byte
		rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		if strings.Trim(id[:12], "0123456789") != "" {
			return id
		}
	}
}

// erase takes away everything of a container. Its volumes come first, as nothing
// but its record tells whose they are; then the record, so that what a crash leaves
// of the rest is nobody's and is collected.
func (c *containers) erase(ctx context.Context, k *ctr, how removal) error {
	if err := c.eraseVolumes(ctx, k, how); err != nil {
		return err
	}
	_, err := c.ctrd.Containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: k.id})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", k.id, err)
	}
	err = c.removeSnapshot(ctx, k.id)
	err = errors.Join(err, os.RemoveAll(c.dir(k.id)), os.RemoveAll(c.fifoDir(k.id)))
	os.Remove(c.attachPath(k.id))
	return err
}

func (c *containers) eraseVolumes(ctx context.Context, k *ctr, how removal) error {
	if !how.volumes {
		return nil
	}
	var names []string
	for _, p := range k.snapshot().Mounts {
		if p.Name != "" {
			names = append(names, p.Name)
		}
	}
	return c.volumes.removeAnonymous(ctx, names)
}
