package image_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/remote"
	"github.com/gantryd/gantry/remote/registrytest"
	"github.com/gantryd/gantry/store/content/local"
	"github.com/gantryd/gantry/store/image"
	"github.com/gantryd/gantry/store/labels"
	"github.com/gantryd/gantry/store/snapshot"
	"github.com/gantryd/gantry/store/snapshot/disk"
)

// names is a store of names in memory.
type names struct {
	mu  sync.Mutex
	all map[string]image.Image
}

func (n *names) Get(_ context.Context, name string) (image.Image, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	img, ok := n.all[name]
	if !ok {
		return image.Image{}, fmt.Errorf("image %s: %w", name, errdefs.ErrNotFound)
	}
	return img, nil
}

func (n *names) List(context.Context, ...string) ([]image.Image, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var all []image.Image
	for _, img := range n.all {
		all = append(all, img)
	}
	return all, nil
}

func (n *names) Create(_ context.Context, img image.Image) (image.Image, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.all[img.Name]; ok {
		return image.Image{}, fmt.Errorf("image %s: %w", img.Name, errdefs.ErrAlreadyExists)
	}
	n.all[img.Name] = img
	return img, nil
}

func (n *names) Update(_ context.Context, img image.Image, fields ...string) (image.Image, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	is := n.all[img.Name]
	var err error
	for _, f := range fields {
		if f == "target" {
			is.Target = img.Target
		} else if is.Labels, err = labels.Merge(is.Labels, img.Labels, []string{f}); err != nil {
			return image.Image{}, err
		}
	}
	n.all[img.Name] = is
	return is, nil
}

func (n *names) Delete(_ context.Context, name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.all, name)
	return nil
}

// stores are empty stores in root.
func stores(t testing.TB, root string) image.Stores {
	t.Helper()
	c, err := local.NewWithLabels(filepath.Join(root, "content"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := disk.Overlay(filepath.Join(root, "overlay"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return image.Stores{Content: c, Snapshots: s, Images: &names{all: map[string]image.Image{}}, Flights: &image.Flights{}}
}

// client does not wait long for anything.
func client() *remote.Client {
	return remote.New(remote.Config{Stall: 300 * time.Millisecond, Retries: 2, Backoff: time.Millisecond})
}

// file is an entry of a layer. Without a type, a name that ends in / is a
// directory, and what has a link is a symbolic one.
type file struct {
	name, data, link string
	mode             int64
	kind             byte
	hdr              tar.Header // what else there is to say
}

// layerTar is the tar of a layer.
func layerTar(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := f.hdr
		h.Name, h.Mode, h.Size, h.Linkname, h.Typeflag = f.name, f.mode, int64(len(f.data)), f.link, f.kind
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1_000_000_000, 0)
		}
		switch {
		case h.Typeflag != 0:
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag = tar.TypeDir
		case f.link != "":
			h.Typeflag = tar.TypeSymlink
		default:
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gz(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zst(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	return w.EncodeAll(data, nil)
}

// blob is a layer as a registry has it, and its diff ID.
type blob struct {
	mediaType string
	data      []byte
	diffID    digest.Digest
}

func gzipLayer(t testing.TB, files ...file) blob {
	t.Helper()
	plain := layerTar(t, files...)
	return blob{ocispec.MediaTypeImageLayerGzip, gz(t, plain), digest.FromBytes(plain)}
}

// serve puts an OCI image into a registry.
func serve(reg *registrytest.Registry, repo, tag string, layers ...blob) ocispec.Manifest {
	return serveFor(reg, repo, tag, ocispec.Platform{OS: "linux", Architecture: "amd64"}, layers...)
}

func serveFor(reg *registrytest.Registry, repo, tag string, p ocispec.Platform, layers ...blob) ocispec.Manifest {
	config := ocispec.Image{Platform: p, RootFS: ocispec.RootFS{Type: "layers"}}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	m.SchemaVersion = 2
	for _, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.diffID)
		m.Layers = append(m.Layers, reg.PutBlob(repo, l.mediaType, l.data))
	}
	m.Config = reg.PutBlob(repo, ocispec.MediaTypeImageConfig, asJSON(config))
	reg.PutManifest(repo, tag, m.MediaType, m)
	return m
}

// big is data that does not compress much, and is not the same for another seed.
func big(seed, size int) string {
	b := make([]byte, size)
	x := uint32(seed)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return string(b)
}

// tree shows the snapshot of an image as a directory until the test ends.
func tree(t testing.TB, s image.Stores, target ocispec.Descriptor, p *ocispec.Platform) string {
	t.Helper()
	config, _, err := image.Config(t.Context(), s.Content, target, p)
	if err != nil {
		t.Fatal(err)
	}
	return snapshotTree(t, s, image.ChainID(config.RootFS.DiffIDs).String())
}

func snapshotTree(t testing.TB, s image.Stores, name string) string {
	t.Helper()
	view := "view-" + t.Name()
	mounts, err := s.Snapshots.View(t.Context(), view, name, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := mount.All(mounts, dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := mount.Unmount(dir); err != nil {
			t.Error(err)
		}
		if err := s.Snapshots.Remove(context.Background(), view); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func wantFile(t testing.TB, dir, name, data string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil || string(got) != data {
		t.Errorf("%s has %d bytes, %v; want %d bytes", name, len(got), err, len(data))
	}
}

// nothingHalf fails the test if a pull that did not succeed left a name, or a
// snapshot that is not one of a whole layer, or a blob of a layer that it could
// not verify.
func nothingHalf(t testing.TB, s image.Stores) {
	t.Helper()
	if all, _ := s.Images.List(t.Context()); len(all) != 0 {
		t.Errorf("names left: %v", all)
	}
	err := s.Snapshots.Walk(context.Background(), func(i snapshot.Info) error {
		if i.Kind != snapshot.Committed {
			t.Errorf("%s snapshot left: %s", i.Kind, i.Name)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// ingests are the offsets of what was left to be resumed.
func ingests(t testing.TB, s image.Stores) map[string]int64 {
	t.Helper()
	all, err := s.Content.ListStatuses(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	offsets := map[string]int64{}
	for _, st := range all {
		offsets[st.Ref] = st.Offset
	}
	return offsets
}
