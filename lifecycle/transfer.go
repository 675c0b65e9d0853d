package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"time"

	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	api "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/image"
)

// transfers is containerd.services.transfer.v1.Transfer: one method, whose source
// and destination say what is to be done.
type transfers struct {
	api.UnimplementedTransferServer
	db       *meta.DB
	streams  *streams
	run      string // names this life of the daemon
	insecure []string
	flights  image.Flights // transfers at the same time unpack a layer once
}

const (
	// leaseAge is how long what a transfer made is kept if no daemon comes after us.
	leaseAge = 24 * time.Hour
	// pullGrace is how long the next daemon keeps what a pull made that its predecessor
	// died in, unless the pull is done before: one that is begun again goes on where it
	// was cut off.
	pullGrace = time.Hour
	// pullLabel is on the lease of a pull and has its reference, runLabel the life of a
	// daemon that pulls it.
	pullLabel = "gantry.lifecycle/pull"
	runLabel  = "gantry.lifecycle/run"
	// onceLabel is on the leases of other transfers, which are not taken up again: the
	// next daemon deletes them.
	onceLabel = "gantry.lifecycle/once"
)

func (t *transfers) Transfer(ctx context.Context, r *api.TransferRequest) (_ *emptypb.Empty, err error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	src, err := typeurl.UnmarshalAny(r.Source)
	if err != nil {
		return nil, fmt.Errorf("read source: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	dst, err := typeurl.UnmarshalAny(r.Destination)
	if err != nil {
		return nil, fmt.Errorf("read destination: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	p, err := t.progress(s.Namespace, r.Options.GetProgressStream())
	if err != nil {
		return nil, err
	}
	defer p.close()
	s, release, err := t.hold(s, src)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, release()) }()
	return &emptypb.Empty{}, t.transfer(ctx, s, src, dst, p)
}

// transfer finds what the two ends mean together.
func (t *transfers) transfer(ctx context.Context, s meta.Scope, src, dst any, p *progress) error {
	switch src := src.(type) {
	case *transfertypes.OCIRegistry:
		if dst, ok := dst.(*transfertypes.ImageStore); ok {
			return t.pull(ctx, s, src, dst, p)
		}
	case *transfertypes.ImageImportStream:
		switch dst := dst.(type) {
		case *transfertypes.ImageStore:
			return t.load(ctx, s, src, dst, p)
		case *transfertypes.ImageExportStream:
			return t.echo(ctx, s, src, dst)
		}
	case *transfertypes.ImageStore:
		switch dst := dst.(type) {
		case *transfertypes.OCIRegistry:
			return t.push(ctx, s, src, dst, p)
		case *transfertypes.ImageExportStream:
			return t.save(ctx, s, src, dst, p)
		case *transfertypes.ImageStore:
			return t.tag(ctx, s, src, dst)
		}
	}
	return fmt.Errorf("transfer from %T to %T: %w", src, dst, errdefs.ErrNotImplemented)
}

// hold makes a lease for a request that came without one.
func (t *transfers) hold(s meta.Scope, src any) (_ meta.Scope, release func() error, err error) {
	if s.Lease != "" {
		return s, func() error { return nil }, nil
	}
	labels := map[string]string{"containerd.io/gc.expire": time.Now().Add(leaseAge).Format(time.RFC3339)}
	if registry, ok := src.(*transfertypes.OCIRegistry); ok {
		labels[pullLabel], labels[runLabel] = registry.Reference, t.run
	} else {
		labels[onceLabel] = "true"
	}
	leases := t.db.Leases(s.Namespace)
	l, err := leases.Create("", labels)
	if err != nil {
		return s, nil, err
	}
	s.Lease = l.ID
	return s, func() error { return leases.Delete(l.ID) }, nil
}

// pulled deletes the leases of pulls of ref that were cut off: it was pulled now.
func (t *transfers) pulled(ns, ref string) error {
	return deleteLeases(t.db.Leases(ns), fmt.Sprintf("labels.%q==%q,labels.%q!=%q", pullLabel, ref, runLabel, t.run))
}

// sweepLeases deletes the leases of transfers that a predecessor died in; those of
// pulls end soon.
func sweepLeases(db *meta.DB) error {
	all, err := db.Namespaces().List()
	if err != nil {
		return err
	}
	for _, ns := range all {
		leases := db.Leases(ns.Name)
		if err := deleteLeases(leases, fmt.Sprintf("labels.%q==true", onceLabel)); err != nil {
			return fmt.Errorf("namespace %s: %w", ns.Name, err)
		}
		pulls, err := leases.List(fmt.Sprintf("labels.%q", pullLabel))
		if err != nil {
			return err
		}
		for _, l := range pulls {
			if err := expireSoon(leases, l); err != nil {
				return fmt.Errorf("namespace %s: lease %s: %w", ns.Name, l.ID, err)
			}
		}
	}
	return nil
}

// expireSoon has the lease of a pull end after pullGrace, or earlier where a restart
// before this one has said so.
func expireSoon(leases meta.Leases, l *leasesapi.Lease) error {
	soon := time.Now().Add(pullGrace)
	if end, err := time.Parse(time.RFC3339, l.Labels["containerd.io/gc.expire"]); err == nil && end.Before(soon) {
		return nil
	}
	return leases.Expire(l.ID, soon)
}

func deleteLeases(leases meta.Leases, filter string) error {
	all, err := leases.List(filter)
	if err != nil {
		return err
	}
	for _, l := range all {
		if err := leases.Delete(l.ID); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
	}
	return nil
}

// stores is where the images of a scope are, unpacked by the snapshotter named.
func (t *transfers) stores(s meta.Scope, snapshotter string) (image.Stores, error) {
	sn, err := t.db.Snapshots(s, snapshotter)
	if err != nil {
		return image.Stores{}, err
	}
	if snapshotter == "" {
		snapshotter = "overlayfs"
	}
	return image.Stores{Content: t.db.Content(s), Snapshots: sn, Snapshotter: snapshotter, Images: t.db.Images(s.Namespace), Flights: &t.flights}, nil
}

// unpacking gives the stores of the first wish, and each wish with its own.
func (t *transfers) unpacking(s meta.Scope, each []wish) (first image.Stores, all []image.Wish, err error) {
	if first, err = t.stores(s, ""); err != nil {
		return first, nil, err
	}
	for i, w := range each {
		by, err := t.stores(s, w.snapshotter)
		if err != nil {
			return first, nil, err
		}
		if i == 0 {
			first = by
		}
		all = append(all, image.Wish{Platform: w.platform, Unpack: w.unpack, Snapshots: by.Snapshots, Snapshotter: by.Snapshotter})
	}
	return first, all, nil
}

// tag gives the image of one name another.
func (t *transfers) tag(ctx context.Context, s meta.Scope, src, dst *transfertypes.ImageStore) error {
	names := t.db.Images(s.Namespace)
	img, err := names.Get(ctx, src.Name)
	if err != nil {
		return err
	}
	img = image.Image{Name: dst.Name, Target: img.Target, Labels: dst.Labels}
	return put(ctx, names, img)
}

// put names an image, also if the name is taken.
func put(ctx context.Context, names image.Images, img image.Image) error {
	_, err := names.Create(ctx, img)
	if errdefs.IsAlreadyExists(err) {
		_, err = names.Update(ctx, img)
	}
	return err
}

// wish is a platform that a destination wants, and who unpacks it, if anybody.
type wish struct {
	platform    *ocispec.Platform
	unpack      bool
	snapshotter string
}

// wishes reads the platforms that a destination wants: those of its filter, each for
// every one who unpacks it. Without a filter it wants all.
func wishes(dst *transfertypes.ImageStore) (each []wish, all bool) {
	if len(dst.Platforms) == 0 {
		for _, u := range dst.Unpacks {
			p := platformFromAPI(u.Platform)
			each = append(each, wish{&p, true, u.Snapshotter})
		}
		return each, true
	}
	for _, filter := range dst.Platforms {
		p := platformFromAPI(filter)
		by := unpackers(dst.Unpacks, platforms.OnlyStrict, p)
		if by == nil {
			by = unpackers(dst.Unpacks, platforms.Only, p)
		}
		if by == nil {
			by = []wish{{platform: &p}}
		}
		each = append(each, by...)
	}
	return each, false
}

// unpackers are those whose platform matches p.
func unpackers(all []*transfertypes.UnpackConfiguration, matcher func(ocispec.Platform) platforms.MatchComparer, p ocispec.Platform) (each []wish) {
	for _, u := range all {
		if matcher(platformFromAPI(u.Platform)).Match(p) {
			each = append(each, wish{&p, true, u.Snapshotter})
		}
	}
	return each
}

func platformFromAPI(p *types.Platform) ocispec.Platform {
	if p.GetOS() == "" && p.GetArchitecture() == "" {
		return platforms.DefaultSpec()
	}
	return ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}
