package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
	"github.com/gantryd/gantry/remote/registrytest"
	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/image"
)

func asJSON(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // a test's own literal
	}
	return data
}

func pull(t testing.TB, s image.Stores, ref string) (image.Image, error) {
	t.Helper()
	return image.Pull(t.Context(), s, ref, image.PullOptions{Registry: client(), Unpack: true})
}

func TestPullLeavesAWellFormedImage(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	m := serve(reg, "lib/app", "1",
		gzipLayer(t, file{name: "etc/"}, file{name: "etc/a", data: "one"}, file{name: "etc/b", data: "b"}),
		gzipLayer(t, file{name: "etc/"}, file{name: "etc/a", data: "two"}, file{name: "etc/.wh.b"}),
	)
	var phases []image.Phase
	img, err := image.Pull(t.Context(), s, reg.Host+"/lib/app:1", image.PullOptions{
		Registry: client(), Unpack: true, Labels: map[string]string{"mine": "1"},
		Progress: func(p image.Progress) { phases = append(phases, p.Phase) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if img.Name != reg.Host+"/lib/app:1" || img.Labels["mine"] != "1" {
		t.Errorf("image is %+v", img)
	}
	dir := tree(t, s, img.Target, nil)
	wantFile(t, dir, "etc/a", "two")
	if _, err := os.Stat(filepath.Join(dir, "etc/b")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("etc/b, which the upper layer removes: %v", err)
	}

	config, desc, err := image.Config(t.Context(), s.Content, img.Target, nil)
	if err != nil {
		t.Fatal(err)
	}
	source := "containerd.io/distribution.source." + reg.Host
	for _, want := range []struct {
		dgst       digest.Digest
		key, value string
	}{
		{img.Target.Digest, "containerd.io/gc.ref.content.config", desc.Digest.String()},
		{img.Target.Digest, "containerd.io/gc.ref.content.l.0", m.Layers[0].Digest.String()},
		{img.Target.Digest, "containerd.io/gc.ref.content.l.1", m.Layers[1].Digest.String()},
		{desc.Digest, "containerd.io/gc.ref.snapshot.overlayfs", image.ChainID(config.RootFS.DiffIDs).String()},
		{m.Layers[1].Digest, "containerd.io/uncompressed", config.RootFS.DiffIDs[1].String()},
		{img.Target.Digest, source, "lib/app"},
		{desc.Digest, source, "lib/app"},
		{m.Layers[0].Digest, source, "lib/app"},
	} {
		info, err := s.Content.Info(t.Context(), want.dgst)
		if err != nil || info.Labels[want.key] != want.value {
			t.Errorf("label %s of %s is %q, want %q (%v)", want.key, want.dgst, info.Labels[want.key], want.value, err)
		}
	}
	if left := ingests(t, s); len(left) != 0 {
		t.Errorf("ingests left: %v", left)
	}
	for _, p := range []image.Phase{image.Resolving, image.Waiting, image.Downloading, image.Done} {
		if !slices.Contains(phases, p) {
			t.Errorf("no progress told of phase %s: %v", p, phases)
		}
	}

	before := len(reg.Log())
	if _, err := pull(t, s, reg.Host+"/lib/app:1"); err != nil {
		t.Fatal(err)
	}
	if again := reg.Log()[before:]; len(again) != 2 || again[0] != "GET /v2/" || !strings.HasPrefix(again[1], "HEAD ") {
		t.Errorf("a pull of what is there asked %q", again)
	}
}

func TestPullReadsEveryFormOfImage(t *testing.T) {
	plain := layerTar(t, file{name: "f", data: "hello"})
	id := digest.FromBytes(plain)
	for _, tt := range []struct {
		name             string
		manifest, config string
		layer            blob
	}{
		{"OCI, gzip", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, blob{ocispec.MediaTypeImageLayerGzip, gz(t, plain), id}},
		{"OCI, zstd", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, blob{ocispec.MediaTypeImageLayerZstd, zst(t, plain), id}},
		{"OCI, uncompressed", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig, blob{ocispec.MediaTypeImageLayer, plain, id}},
		{"docker schema 2", remote.DockerManifest, remote.DockerConfig, blob{remote.DockerLayer, gz(t, plain), id}},
		{
			"gzip of two members", ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageConfig,
			blob{ocispec.MediaTypeImageLayerGzip, append(gz(t, plain[:700]), gz(t, plain[700:])...), id},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reg, s := registrytest.Start(t), stores(t, t.TempDir())
			m := ocispec.Manifest{MediaType: tt.manifest, Layers: []ocispec.Descriptor{reg.PutBlob("a", tt.layer.mediaType, tt.layer.data)}}
			m.SchemaVersion = 2
			m.Config = reg.PutBlob("a", tt.config, asJSON(ocispec.Image{RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{id}}}))
			reg.PutManifest("a", "1", tt.manifest, m)
			img, err := pull(t, s, reg.Host+"/a:1")
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, tree(t, s, img.Target, nil), "f", "hello")
		})
	}
}

// serveIndex puts an index for amd64 and arm64, with an attestation, into a registry.
func serveIndex(t *testing.T, reg *registrytest.Registry, repo, tag, mediaType string) ocispec.Index {
	t.Helper()
	index := ocispec.Index{MediaType: mediaType}
	index.SchemaVersion = 2
	for _, arch := range []string{"arm64", "amd64"} {
		p := ocispec.Platform{OS: "linux", Architecture: arch}
		m := serveFor(reg, repo, "", p, gzipLayer(t, file{name: "arch", data: arch}))
		desc := reg.PutManifest(repo, "", m.MediaType, m)
		desc.Platform = &p
		index.Manifests = append(index.Manifests, desc)
	}
	att := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest}
	att.SchemaVersion = 2
	att.Config = reg.PutBlob(repo, ocispec.MediaTypeImageConfig, []byte(`{"architecture":"unknown","os":"unknown"}`))
	att.Layers = []ocispec.Descriptor{reg.PutBlob(repo, "application/vnd.in-toto+json", []byte(`{}`))}
	desc := reg.PutManifest(repo, "", att.MediaType, att)
	desc.Platform = &ocispec.Platform{OS: "unknown", Architecture: "unknown"}
	desc.Annotations = map[string]string{"vnd.docker.reference.type": "attestation-manifest"}
	index.Manifests = append(index.Manifests, desc)
	reg.PutManifest(repo, tag, mediaType, index)
	return index
}

func TestPullChoosesAPlatform(t *testing.T) {
	for _, mediaType := range []string{ocispec.MediaTypeImageIndex, remote.DockerManifestList} {
		for _, arch := range []string{"amd64", "arm64"} {
			t.Run(arch+" of "+mediaType, func(t *testing.T) {
				reg, s := registrytest.Start(t), stores(t, t.TempDir())
				index := serveIndex(t, reg, "a", "1", mediaType)
				p := &ocispec.Platform{OS: "linux", Architecture: arch}
				img, err := image.Pull(t.Context(), s, reg.Host+"/a:1", image.PullOptions{Registry: client(), Unpack: true, Platform: p})
				if err != nil {
					t.Fatal(err)
				}
				wantFile(t, tree(t, s, img.Target, p), "arch", arch)
				here, err := image.Platforms(t.Context(), s.Content, img.Target)
				if err != nil || len(here) != 1 || here[0].Architecture != arch {
					t.Errorf("platforms are %v, %v", here, err)
				}
				info, err := s.Content.Info(t.Context(), img.Target.Digest)
				if err != nil || info.Labels["containerd.io/gc.ref.content.m.1"] != index.Manifests[1].Digest.String() {
					t.Errorf("labels of the index are %v, %v", info.Labels, err)
				}
			})
		}
	}
	t.Run("one that is not offered is NotFound and says what is", func(t *testing.T) {
		reg, s := registrytest.Start(t), stores(t, t.TempDir())
		serveIndex(t, reg, "a", "1", ocispec.MediaTypeImageIndex)
		p := &ocispec.Platform{OS: "linux", Architecture: "s390x"}
		_, err := image.Pull(t.Context(), s, reg.Host+"/a:1", image.PullOptions{Registry: client(), Unpack: true, Platform: p})
		if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "linux/s390x") || !strings.Contains(err.Error(), "linux/arm64, linux/amd64") {
			t.Errorf("error is %v", err)
		}
		nothingHalf(t, s)
	})
	t.Run("all are fetched, one is unpacked", func(t *testing.T) {
		reg, s := registrytest.Start(t), stores(t, t.TempDir())
		serveIndex(t, reg, "a", "1", ocispec.MediaTypeImageIndex)
		p := &ocispec.Platform{OS: "linux", Architecture: "arm64"}
		img, err := image.Pull(t.Context(), s, reg.Host+"/a:1", image.PullOptions{Registry: client(), Unpack: true, AllPlatforms: true, Platform: p})
		if err != nil {
			t.Fatal(err)
		}
		if here, err := image.Platforms(t.Context(), s.Content, img.Target); err != nil || len(here) != 2 {
			t.Errorf("platforms are %v, %v", here, err)
		}
		wantFile(t, tree(t, s, img.Target, p), "arch", "arm64")
		other, _, err := image.Config(t.Context(), s.Content, img.Target, &ocispec.Platform{OS: "linux", Architecture: "amd64"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Snapshots.Stat(t.Context(), image.ChainID(other.RootFS.DiffIDs).String()); !errdefs.IsNotFound(err) {
			t.Errorf("snapshot of the other platform: %v", err)
		}
	})
}

// onBlob answers requests for one blob.
func onBlob(reg *registrytest.Registry, dgst digest.Digest, fn func(n int, w http.ResponseWriter, r *http.Request) bool) {
	var mu sync.Mutex
	n := 0
	reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, dgst.String()) {
			return false
		}
		mu.Lock()
		n++
		now := n
		mu.Unlock()
		return fn(now, w, r)
	})
}

// part sends the beginning of a blob as if all would come.
func part(w http.ResponseWriter, data []byte, n int) {
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Write(data[:n])
	w.(http.Flusher).Flush()
}

func TestPullGoesOnWhereTheConnectionBroke(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	data := big(1, 3<<20)
	m := serve(reg, "a", "1", gzipLayer(t, file{name: "f", data: data}))
	l := m.Layers[0]
	onBlob(reg, l.Digest, func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n > 1 {
			return false
		}
		part(w, reg.Blob("a", l.Digest), 1<<20)
		panic(http.ErrAbortHandler)
	})
	img, err := pull(t, s, reg.Host+"/a:1")
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, tree(t, s, img.Target, nil), "f", data)
	if !slices.ContainsFunc(reg.Log(), func(line string) bool { return strings.Contains(line, "bytes=1048576-") }) {
		t.Errorf("no request for the rest alone: %q", reg.Log())
	}
}

func TestAPullThatBrokeOffIsResumedByTheNext(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	data := big(1, 3<<20)
	m := serve(reg, "a", "1", gzipLayer(t, file{name: "f", data: data}))
	l := m.Layers[0]
	onBlob(reg, l.Digest, func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 1 {
			part(w, reg.Blob("a", l.Digest), 1<<20)
		}
		panic(http.ErrAbortHandler)
	})
	_, err := pull(t, s, reg.Host+"/a:1")
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), l.Digest.String()) || !strings.Contains(err.Error(), reg.Host) {
		t.Errorf("error is %v", err)
	}
	nothingHalf(t, s)
	if at := ingests(t, s)["layer-"+l.Digest.String()]; at != 1<<20 {
		t.Fatalf("ingest has %d bytes, want %d", at, 1<<20)
	}
	reg.Intercept(nil)
	before := len(reg.Log())
	img, err := pull(t, s, reg.Host+"/a:1")
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, tree(t, s, img.Target, nil), "f", data)
	for _, line := range reg.Log()[before:] {
		if strings.Contains(line, l.Digest.String()) && !strings.HasSuffix(line, " bytes=1048576-") {
			t.Errorf("the second pull asked %q", line)
		}
	}
	if left := ingests(t, s); len(left) != 0 {
		t.Errorf("ingests left: %v", left)
	}
}

func TestACancelledPullEndsAndKeepsWhatCame(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	m := serve(reg, "a", "1", gzipLayer(t, file{name: "f", data: big(1, 3<<20)}))
	l := m.Layers[0]
	ctx, cancel := context.WithCancel(t.Context())
	onBlob(reg, l.Digest, func(_ int, w http.ResponseWriter, r *http.Request) bool {
		part(w, reg.Blob("a", l.Digest), 1<<20)
		cancel()
		<-r.Context().Done()
		return true
	})
	_, err := image.Pull(ctx, s, reg.Host+"/a:1", image.PullOptions{Registry: remote.New(remote.Config{}), Unpack: true})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	nothingHalf(t, s)
	if _, kept := ingests(t, s)["layer-"+l.Digest.String()]; !kept {
		t.Error("the ingest is gone")
	}
}

func TestWhatARegistryGetsWrongIsSaidAndLeavesNothing(t *testing.T) {
	plain := layerTar(t, file{name: "f", data: big(7, 1<<20)})
	good := blob{ocispec.MediaTypeImageLayerGzip, gz(t, plain), digest.FromBytes(plain)}
	other := gz(t, layerTar(t, file{name: "f", data: big(8, 1<<20)}))
	flipped := bytes.Clone(good.data)
	copy(flipped[len(flipped)/2:], "garbage, not what was pushed")

	for _, tt := range []struct {
		name  string
		layer blob
		fault func(reg *registrytest.Registry, l ocispec.Descriptor)
		kind  func(error) bool
		says  string
		kept  bool // the ingest may be gone on with
	}{
		{
			"other bytes of the same size", good, func(reg *registrytest.Registry, l ocispec.Descriptor) {
				reg.SetBlob("a", l.Digest, append(other, make([]byte, len(good.data))...)[:len(good.data)])
			},
			errdefs.IsFailedPrecondition, "registry sent sha256:", false,
		},
		{
			"a bit that fell over", good, func(reg *registrytest.Registry, l ocispec.Descriptor) { reg.SetBlob("a", l.Digest, flipped) },
			errdefs.IsFailedPrecondition, "registry sent sha256:", false,
		},
		{
			"a blob that is too short", good, func(reg *registrytest.Registry, l ocispec.Descriptor) {
				reg.SetBlob("a", l.Digest, good.data[:len(good.data)/2])
			},
			errdefs.IsFailedPrecondition, fmt.Sprintf("registry sends %d bytes, not %d", len(good.data)/2, len(good.data)), true,
		},
		{
			"a blob that is too long", good, func(reg *registrytest.Registry, l ocispec.Descriptor) {
				reg.SetBlob("a", l.Digest, append(bytes.Clone(good.data), "more"...))
			},
			errdefs.IsFailedPrecondition, "registry sends", true,
		},
		{
			"a blob without an end", good, func(reg *registrytest.Registry, l ocispec.Descriptor) {
				onBlob(reg, l.Digest, func(_ int, w http.ResponseWriter, r *http.Request) bool {
					w.Write(good.data)
					w.(http.Flusher).Flush() // no length: chunked
					for r.Context().Err() == nil {
						if _, err := w.Write(make([]byte, 1<<16)); err != nil {
							break
						}
					}
					return true
				})
			},
			errdefs.IsFailedPrecondition, "registry sends more than", true,
		},
		{
			"a registry that stalls", good, func(reg *registrytest.Registry, l ocispec.Descriptor) {
				onBlob(reg, l.Digest, func(n int, w http.ResponseWriter, r *http.Request) bool {
					if n == 1 {
						part(w, good.data, len(good.data)/2)
					}
					<-r.Context().Done()
					return true
				})
			},
			errdefs.IsUnavailable, "", true,
		},
		{
			"a blob that is missing", good, func(reg *registrytest.Registry, l ocispec.Descriptor) { reg.SetBlob("a", l.Digest, nil) },
			errdefs.IsNotFound, "blob unknown", true,
		},
		{
			"a diff ID that is not the tar's",
			blob{good.mediaType, good.data, digest.FromString("another")},
			nil,
			errdefs.IsFailedPrecondition, "uncompressed it is " + good.diffID.String(), false,
		},
		{
			"a tar that is cut off",
			blob{ocispec.MediaTypeImageLayerGzip, gz(t, plain[:len(plain)/2]), digest.FromBytes(plain[:len(plain)/2])},
			nil,
			func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }, "", false,
		},
		{
			"a gzip stream that is cut off",
			blob{ocispec.MediaTypeImageLayerGzip, good.data[:len(good.data)/2], good.diffID},
			nil,
			errdefs.IsDataLoss, "decompress", false,
		},
		{
			"garbage instead of a tar",
			blob{ocispec.MediaTypeImageLayerGzip, gz(t, []byte(big(3, 4096))), digest.FromString(big(3, 4096))},
			nil,
			func(err error) bool { return err != nil }, "tar", false,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reg, s := registrytest.Start(t), stores(t, t.TempDir())
			base := gzipLayer(t, file{name: "base", data: "base"})
			m := serve(reg, "a", "1", base, tt.layer)
			if tt.fault != nil {
				tt.fault(reg, m.Layers[1])
			}
			_, err := pull(t, s, reg.Host+"/a:1")
			if !tt.kind(err) || !strings.Contains(fmt.Sprint(err), tt.says) || !strings.Contains(fmt.Sprint(err), m.Layers[1].Digest.String()) {
				t.Errorf("error is %v", err)
			}
			if strings.Contains(fmt.Sprint(err), "\n") {
				t.Errorf("error has several lines: %v", err)
			}
			nothingHalf(t, s)
			if _, kept := ingests(t, s)["layer-"+m.Layers[1].Digest.String()]; kept && !tt.kept {
				t.Error("an ingest of bytes that are wrong is left")
			}
			if _, err := s.Content.Info(t.Context(), m.Layers[1].Digest); !errdefs.IsNotFound(err) {
				t.Errorf("blob of the layer: %v", err)
			}
			// What is mended can be pulled.
			reg.Intercept(nil)
			m = serve(reg, "a", "1", base, good)
			if _, err := pull(t, s, reg.Host+"/a:1"); err != nil {
				t.Errorf("once it is mended: %v", err)
			}
		})
	}
}

func TestManifestsAreNotBelieved(t *testing.T) {
	good := gzipLayer(t, file{name: "f", data: "x"})
	for _, tt := range []struct {
		name  string
		fault func(reg *registrytest.Registry, m ocispec.Manifest)
		says  string
	}{
		{"a manifest that is an index too", func(reg *registrytest.Registry, m ocispec.Manifest) {
			reg.PutManifest("a", "1", ocispec.MediaTypeImageManifest, map[string]any{
				"schemaVersion": 2, "config": m.Config, "layers": m.Layers, "manifests": m.Layers,
			})
		}, "index and a manifest at once"},
		{"schema 1", func(reg *registrytest.Registry, _ ocispec.Manifest) {
			reg.PutManifest("a", "1", "application/vnd.docker.distribution.manifest.v1+prettyjws", map[string]any{"schemaVersion": 1, "fsLayers": []string{}})
		}, "not an image"},
		{"a digest that leads out of the store", func(reg *registrytest.Registry, m ocispec.Manifest) {
			m.Layers[0].Digest = "sha256:../../../../etc/passwd"
			reg.PutManifest("a", "1", m.MediaType, m)
		}, "invalid"},
		{"a negative size", func(reg *registrytest.Registry, m ocispec.Manifest) {
			m.Layers[0].Size = -1
			reg.PutManifest("a", "1", m.MediaType, m)
		}, "size -1"},
		{"more layers than diff IDs", func(reg *registrytest.Registry, m ocispec.Manifest) {
			m.Layers = append(m.Layers, m.Layers[0])
			reg.PutManifest("a", "1", m.MediaType, m)
		}, "manifest has 2 layers"},
		{"a config as large as a layer", func(reg *registrytest.Registry, m ocispec.Manifest) {
			m.Config.Size = 1 << 40
			reg.PutManifest("a", "1", m.MediaType, m)
		}, "more than"},
		{"a document of another digest", func(reg *registrytest.Registry, m ocispec.Manifest) {
			reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
					w.Header().Set("Content-Type", m.MediaType)
					w.Write(bytes.Replace(asJSON(m), []byte(`"schemaVersion":2`), []byte(`"schemaVersion":3`), 1))
					return true
				}
				return false
			})
		}, "manifest is sha256:"},
		{"a layer of encrypted bytes", func(reg *registrytest.Registry, m ocispec.Manifest) {
			m.Layers[0].MediaType += "+encrypted"
			reg.PutManifest("a", "1", m.MediaType, m)
		}, "+encrypted"},
		{"what is no image", func(reg *registrytest.Registry, m ocispec.Manifest) {
			reg.PutManifest("a", "1", "application/json", m)
		}, "application/json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reg, s := registrytest.Start(t), stores(t, t.TempDir())
			tt.fault(reg, serve(reg, "a", "1", good))
			_, err := pull(t, s, reg.Host+"/a:1")
			if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v", err)
			}
			nothingHalf(t, s)
			if left := ingests(t, s); len(left) != 0 {
				t.Errorf("ingests left: %v", left)
			}
		})
	}
}

func TestPullsAtTheSameTimeShareLayers(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	var layers []blob
	for i := range 6 {
		layers = append(layers, gzipLayer(t, file{name: fmt.Sprint("f", i), data: big(i, 200<<10)}))
	}
	layers = append(layers, layers[0]) // the same one twice
	m := serve(reg, "a", "1", layers...)
	serve(reg, "a", "2", layers[:4]...)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := pull(t, s, fmt.Sprintf("%s/a:%d", reg.Host, 1+i%2)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, l := range m.Layers {
		n := 0
		for _, line := range reg.Log() {
			if strings.HasPrefix(line, "GET ") && strings.Contains(line, l.Digest.String()) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("layer %s was fetched %d times", l.Digest, n)
		}
	}
	if left := ingests(t, s); len(left) != 0 {
		t.Errorf("ingests left: %v", left)
	}
}

func TestTheSameLayersWithoutFlightsAreNoErrorEither(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	s.Flights = nil // as between two processes
	serve(reg, "a", "1", gzipLayer(t, file{name: "f", data: big(1, 1<<20)}), gzipLayer(t, file{name: "g", data: big(2, 1<<20)}))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := pull(t, s, reg.Host+"/a:1"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if img, err := s.Images.Get(t.Context(), reg.Host+"/a:1"); err != nil {
		t.Error(err)
	} else {
		wantFile(t, tree(t, s, img.Target, nil), "g", big(2, 1<<20))
	}
}

func TestUnpackOfABlobThatIsNotThereNamesIt(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	m := serve(reg, "a", "1", gzipLayer(t, file{name: "f", data: "x"}))
	img, err := image.Pull(t.Context(), s, reg.Host+"/a:1", image.PullOptions{Registry: client()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Content.Delete(t.Context(), m.Layers[0].Digest); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Unpack(t.Context(), s, img.Target, image.UnpackOptions{}); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), m.Layers[0].Digest.String()) {
		t.Errorf("error is %v", err)
	}
}

func TestARottenBlobIsNotUnpacked(t *testing.T) {
	reg, root := registrytest.Start(t), t.TempDir()
	s := stores(t, root)
	m := serve(reg, "a", "1", gzipLayer(t, file{name: "f", data: big(1, 1<<20)}))
	img, err := image.Pull(t.Context(), s, reg.Host+"/a:1", image.PullOptions{Registry: client()})
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(root, "content", "blobs", "sha256", m.Layers[0].Digest.Encoded())
	f, err := os.OpenFile(blob, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("rotten"), 5000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	_, err = image.Unpack(t.Context(), s, img.Target, image.UnpackOptions{})
	if err == nil || !strings.Contains(err.Error(), m.Layers[0].Digest.String()) {
		t.Errorf("error is %v", err)
	}
	if err := s.Images.Delete(t.Context(), img.Name); err != nil {
		t.Fatal(err)
	}
	nothingHalf(t, s)
}

// A store over gRPC cannot read what it has not committed: the rest is received
// first, and then the blob is unpacked.
type unreadable struct{ content.Store }

func (u unreadable) Writer(ctx context.Context, ref string, desc ocispec.Descriptor) (content.Writer, error) {
	w, err := u.Store.Writer(ctx, ref, desc)
	if err != nil {
		return nil, err
	}
	return struct{ content.Writer }{w}, nil
}

func TestResumeIntoAStoreThatCannotReadIngests(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	s.Content = unreadable{s.Content}
	data := big(1, 1<<20)
	m := serve(reg, "a", "1", gzipLayer(t, file{name: "f", data: data}))
	l := m.Layers[0]
	w, err := s.Content.Writer(t.Context(), "layer-"+l.Digest.String(), l)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(reg.Blob("a", l.Digest)[:100_000]); err != nil {
		t.Fatal(err)
	}
	w.Close()
	img, err := pull(t, s, reg.Host+"/a:1")
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, tree(t, s, img.Target, nil), "f", data)
	if !slices.ContainsFunc(reg.Log(), func(line string) bool { return strings.Contains(line, "bytes=100000-") }) {
		t.Errorf("no request for the rest alone: %q", reg.Log())
	}
}

func TestAnIngestWithWrongBytesIsThrownAway(t *testing.T) {
	for _, readable := range []bool{true, false} {
		t.Run(fmt.Sprintf("readable %v", readable), func(t *testing.T) {
			reg, s := registrytest.Start(t), stores(t, t.TempDir())
			if !readable {
				s.Content = unreadable{s.Content}
			}
			m := serve(reg, "a", "1", gzipLayer(t, file{name: "f", data: big(1, 1<<20)}))
			l := m.Layers[0]
			w, err := s.Content.Writer(t.Context(), "layer-"+l.Digest.String(), l)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, 100_000)); err != nil {
				t.Fatal(err)
			}
			w.Close()
			if _, err := pull(t, s, reg.Host+"/a:1"); err == nil {
				t.Error("a pull onto wrong bytes succeeded")
			}
			nothingHalf(t, s)
			if _, err := pull(t, s, reg.Host+"/a:1"); err != nil {
				t.Errorf("the second pull: %v", err)
			}
		})
	}
}

// An import of an index has the images below it expire; one that is then pulled by
// itself is there to stay.
func TestAnImageThatIsPulledDoesNotExpire(t *testing.T) {
	from, s := registrytest.Start(t), stores(t, t.TempDir())
	serve(from, "src", "1", gzipLayer(t, file{name: "f", data: "x"}))
	img, err := pull(t, s, from.Host+"/src:1")
	if err != nil {
		t.Fatal(err)
	}
	img.Labels = map[string]string{"mine": "stays", "containerd.io/gc.expire": "2026-01-01T00:00:00Z", "containerd.io/gc.bref.image": "other"}
	if _, err := s.Images.Update(t.Context(), img, "labels"); err != nil {
		t.Fatal(err)
	}
	img, err = pull(t, s, from.Host+"/src:1")
	if err != nil || len(img.Labels) != 1 || img.Labels["mine"] != "stays" {
		t.Errorf("pulled again, it has the labels %v, %v", img.Labels, err)
	}
}
