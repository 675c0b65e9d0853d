package lifecycle_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc/codes"

	"github.com/gantryd/gantry/remote/registrytest"
)

// serveImage puts an image of one layer, with one file that says its platform, into
// the registry for each platform, and gives the names of their snapshots.
func serveImage(t *testing.T, reg *registrytest.Registry, name string, each ...ocispec.Platform) (index ocispec.Descriptor, chains []string) {
	t.Helper()
	var all ocispec.Index
	all.SchemaVersion, all.MediaType = 2, ocispec.MediaTypeImageIndex
	for _, p := range each {
		plain := fileTar(t, "platform", name+" for "+platforms.Format(p))
		diff := digest.FromBytes(plain)
		config := ok(json.Marshal(ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diff}}}))(t)
		m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
		m.SchemaVersion = 2
		m.Layers = []ocispec.Descriptor{reg.PutBlob(name, ocispec.MediaTypeImageLayer, plain)}
		m.Config = reg.PutBlob(name, ocispec.MediaTypeImageConfig, config)
		desc := reg.PutManifest(name, "", m.MediaType, m)
		desc.Platform = &p
		all.Manifests = append(all.Manifests, desc)
		chains = append(chains, diff.String())
	}
	return reg.PutManifest(name, "latest", all.MediaType, all), chains
}

// fileTar is the tar of one file.
func fileTar(t *testing.T, name, data string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// pull asks for a transfer from the registry.
func (a *api) pull(t *testing.T, ctx context.Context, ref string, to *transfertypes.ImageStore) error {
	t.Helper()
	to.Name = ref
	_, err := transferapi.NewTransferClient(a.ClientConnInterface).Transfer(ctx, &transferapi.TransferRequest{
		Source: anyOf(t, &transfertypes.OCIRegistry{Reference: ref}), Destination: anyOf(t, to),
	})
	return err
}

func (a *api) hasSnapshot(ctx context.Context, snapshotter, name string) bool {
	_, err := a.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: snapshotter, Key: name})
	return err == nil
}

func TestALayerThatAPowerCutToreIsUnpackedAnew(t *testing.T) {
	reg := registrytest.Start(t)
	_, chains := serveImage(t, reg, "lost", ocispec.Platform{OS: "linux", Architecture: "amd64"})
	_, used := serveImage(t, reg, "used", ocispec.Platform{OS: "linux", Architecture: "amd64"})
	toHere := func() *transfertypes.ImageStore {
		return &transfertypes.ImageStore{Unpacks: []*transfertypes.UnpackConfiguration{{Snapshotter: "overlayfs"}}}
	}
	d, ctx := newDaemon(t), in("lost")
	stop := d.startOurs(t)
	a := d.dial(t)
	for _, name := range []string{"lost", "used"} {
		if err := a.pull(t, ctx, reg.Host+"/"+name+":latest", toHere()); err != nil {
			t.Fatal(err)
		}
	}
	ok(a.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "container", Parent: used[0]}))(t)
	stop()
	anotherBoot(t, filepath.Join(d.root(), "io.containerd.snapshotter.v1.overlayfs", "metadata.db"))

	var log bytes.Buffer
	cfg := d.config()
	cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	stop = d.startConfigured(t, cfg)
	a = d.dial(t)
	if a.hasSnapshot(ctx, "overlayfs", chains[0]) {
		t.Error("the layer that nobody uses is still believed")
	}
	if !a.hasSnapshot(ctx, "overlayfs", used[0]) {
		t.Error("the layer that is used is gone")
	}
	if err := a.pull(t, ctx, reg.Host+"/lost:latest", toHere()); err != nil {
		t.Error(err)
	}
	view := ok(a.snapshots.View(ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: "overlayfs", Key: "look", Parent: chains[0]}))(t)
	if data, err := os.ReadFile(filepath.Join(view.Mounts[0].Source, "platform")); string(data) != "lost for linux/amd64" {
		t.Errorf("unpacked anew it has %q, %v", data, err)
	}
	stop()
	if n := strings.Count(log.String(), "level=WARN"); n != 1 || !strings.Contains(log.String(), "container") {
		t.Errorf("logged: %s", log.String())
	}
}

// What a pull fetches and unpacks is containerd's way (core/transfer/local/pull.go).
func TestAPullOfSeveralPlatforms(t *testing.T) {
	reg := registrytest.Start(t)
	all := []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "arm", Variant: "v7"}}
	index, chains := serveImage(t, reg, "a", all...)
	d := newDaemon(t)
	d.startOurs(t)
	a := d.dial(t)
	of := func(arch string) *types.Platform { return &types.Platform{OS: "linux", Architecture: arch} }
	unpack := func(arch, snapshotter string) *transfertypes.UnpackConfiguration {
		return &transfertypes.UnpackConfiguration{Platform: of(arch), Snapshotter: snapshotter}
	}
	for _, tt := range []struct {
		name     string
		to       *transfertypes.ImageStore
		unpacked []int // of all
		fetched  []int
	}{
		{"all, unpacked for none", &transfertypes.ImageStore{}, nil, []int{0, 1, 2}},
		{"all, unpacked for two", &transfertypes.ImageStore{Unpacks: []*transfertypes.UnpackConfiguration{unpack("amd64", "overlayfs"), unpack("arm64", "overlayfs")}}, []int{0, 1}, []int{0, 1, 2}},
		{"two, both unpacked", &transfertypes.ImageStore{
			Platforms: []*types.Platform{of("amd64"), of("arm64")},
			Unpacks:   []*transfertypes.UnpackConfiguration{unpack("arm64", "overlayfs"), unpack("amd64", "overlayfs")},
		}, []int{0, 1}, []int{0, 1}},
		{"two, one unpacked", &transfertypes.ImageStore{
			Platforms: []*types.Platform{of("arm64"), of("amd64")},
			Unpacks:   []*transfertypes.UnpackConfiguration{unpack("amd64", "overlayfs")},
		}, []int{0}, []int{0, 1}},
		{"one that another machine can run too", &transfertypes.ImageStore{
			Platforms: []*types.Platform{{OS: "linux", Architecture: "arm", Variant: "v7"}},
			Unpacks:   []*transfertypes.UnpackConfiguration{unpack("arm64", "overlayfs")},
		}, []int{2}, []int{2}},
		{"unpacked for what is not wanted", &transfertypes.ImageStore{
			Platforms: []*types.Platform{of("amd64")},
			Unpacks:   []*transfertypes.UnpackConfiguration{unpack("amd64", "overlayfs"), unpack("arm64", "overlayfs")},
		}, []int{0}, []int{0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := in(strings.ReplaceAll(strings.ReplaceAll(tt.name, " ", "-"), ",", ""))
			ref := reg.Host + "/a:latest"
			if err := a.pull(t, ctx, ref, tt.to); err != nil {
				t.Fatal(err)
			}
			img := ok(a.images.Get(ctx, &imagesapi.GetImageRequest{Name: ref}))(t).Image
			if img.Target.Digest != index.Digest.String() {
				t.Errorf("it is %s, want %s", img.Target.Digest, index.Digest)
			}
			blobs := ok(a.blobs(ctx))(t)
			for i, chain := range chains {
				if got, want := a.hasSnapshot(ctx, "overlayfs", chain), slices.Contains(tt.unpacked, i); got != want {
					t.Errorf("%s unpacked: %t, want %t", platforms.Format(all[i]), got, want)
				}
				// The layer is not compressed: its diff ID is its digest.
				if got, want := slices.ContainsFunc(blobs, func(b string) bool { return strings.Contains(b, chain) }), slices.Contains(tt.fetched, i); got != want {
					t.Errorf("%s fetched: %t, want %t", platforms.Format(all[i]), got, want)
				}
			}
		})
	}
	t.Run("unpacked by two snapshotters", func(t *testing.T) {
		ctx := in("two-snapshotters")
		to := &transfertypes.ImageStore{
			Platforms: []*types.Platform{of("amd64")},
			Unpacks:   []*transfertypes.UnpackConfiguration{unpack("amd64", "overlayfs"), unpack("amd64", "native")},
		}
		if err := a.pull(t, ctx, reg.Host+"/a:latest", to); err != nil {
			t.Fatal(err)
		}
		for _, snapshotter := range []string{"overlayfs", "native"} {
			if !a.hasSnapshot(ctx, snapshotter, chains[0]) {
				t.Errorf("%s does not have it", snapshotter)
			}
		}
	})
	t.Run("a platform that the image does not have leaves no name", func(t *testing.T) {
		ctx := in("missing")
		err := a.pull(t, ctx, reg.Host+"/a:latest", &transfertypes.ImageStore{Platforms: []*types.Platform{of("amd64"), of("s390x")}})
		wantCode(t, codes.NotFound, err)
		if n := len(ok(a.images.List(ctx, &imagesapi.ListImagesRequest{}))(t).Images); n != 0 {
			t.Errorf("%d images are named", n)
		}
	})
}

// anotherBoot makes a database of snapshots say that the machine went down before
// any of the layers was on disk.
func anotherBoot(t *testing.T, file string) {
	t.Helper()
	db := ok(bolt.Open(file, 0o600, nil))(t)
	defer db.Close()
	err := db.Update(func(tx *bolt.Tx) error {
		all := tx.Bucket([]byte("v1")).Bucket([]byte("snapshots"))
		return all.ForEachBucket(func(name []byte) error {
			b := all.Bucket(name)
			if kind := b.Get([]byte("kind")); kind[0] != 3 {
				return nil
			}
			return tx.Bucket([]byte("gantry")).Bucket([]byte("unsynced")).Put(slices.Clone(b.Get([]byte("id"))), []byte("another boot"))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
}
