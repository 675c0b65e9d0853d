package image_test

import (
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
	"github.com/gantryd/gantry/remote/registrytest"
	"github.com/gantryd/gantry/store/image"
)

// pulled pulls an image of one layer from a registry of its own.
func pulled(t *testing.T) (image.Stores, image.Image, blob) {
	t.Helper()
	from, s := registrytest.Start(t), stores(t, t.TempDir())
	l := gzipLayer(t, file{name: "f", data: big(1, 1<<20)})
	serve(from, "src", "1", l)
	img, err := pull(t, s, from.Host+"/src:1")
	if err != nil {
		t.Fatal(err)
	}
	return s, img, l
}

func TestPushSendsAWholeImage(t *testing.T) {
	s, img, _ := pulled(t)
	reg := registrytest.Start(t)
	var phases []image.Phase
	sent, err := image.Push(t.Context(), s, reg.Host+"/dst/app:2", img.Target, image.PushOptions{
		Registry: client(), Progress: func(p image.Progress) { phases = append(phases, p.Phase) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if sent.Digest != img.Target.Digest || digest.FromBytes(reg.Manifest("dst/app", "2")) != sent.Digest {
		t.Errorf("sent %s, registry has %s", sent.Digest, digest.FromBytes(reg.Manifest("dst/app", "2")))
	}
	for _, p := range []image.Phase{image.Waiting, image.Uploading, image.Done} {
		if !slices.Contains(phases, p) {
			t.Errorf("no progress told of phase %s: %v", p, phases)
		}
	}
	// And it is what it was.
	other := stores(t, t.TempDir())
	back, err := pull(t, other, reg.Host+"/dst/app:2")
	if err != nil {
		t.Fatal(err)
	}
	wantFile(t, tree(t, other, back.Target, nil), "f", big(1, 1<<20))

	before := len(reg.Log())
	if _, err := image.Push(t.Context(), s, reg.Host+"/dst/app:3", img.Target, image.PushOptions{Registry: client()}); err != nil {
		t.Fatal(err)
	}
	for _, line := range reg.Log()[before:] {
		if strings.HasPrefix(line, "POST ") {
			t.Errorf("what the registry has is sent again: %s", line)
		}
	}
	if n := reg.Sessions(); n != 0 {
		t.Errorf("%d upload sessions are left", n)
	}
}

func TestPushMountsWhatTheRegistryHasElsewhere(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	m := serve(reg, "team/base", "1", gzipLayer(t, file{name: "f", data: big(1, 1<<20)}))
	img, err := pull(t, s, reg.Host+"/team/base:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.Push(t.Context(), s, reg.Host+"/team/app:1", img.Target, image.PushOptions{Registry: client()}); err != nil {
		t.Fatal(err)
	}
	if reg.Blob("team/app", m.Layers[0].Digest) == nil {
		t.Error("the layer is not there")
	}
	for _, line := range reg.Log() {
		if strings.HasPrefix(line, "PUT ") && strings.Contains(line, "/blobs/") {
			t.Errorf("bytes were sent: %s", line)
		}
	}
	t.Run("or sends the bytes where it does not take it over", func(t *testing.T) {
		reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Query().Get("from") != "" {
				registrytest.Refuse(w, http.StatusForbidden, "DENIED", "requested access to the resource is denied")
				return true
			}
			return false
		})
		if _, err := image.Push(t.Context(), s, reg.Host+"/other/app:1", img.Target, image.PushOptions{Registry: client()}); err != nil {
			t.Fatal(err)
		}
		if reg.Blob("other/app", m.Layers[0].Digest) == nil {
			t.Error("the layer is not there")
		}
	})
}

func TestPushOfAnIndex(t *testing.T) {
	from := registrytest.Start(t)
	index := serveIndex(t, from, "a", "1", ocispec.MediaTypeImageIndex)
	get := func(t *testing.T, all bool) (image.Stores, image.Image) {
		s := stores(t, t.TempDir())
		img, err := image.Pull(t.Context(), s, from.Host+"/a:1", image.PullOptions{Registry: client(), AllPlatforms: all, Platform: &ocispec.Platform{OS: "linux", Architecture: "amd64"}})
		if err != nil {
			t.Fatal(err)
		}
		return s, img
	}
	t.Run("all of it where all is here", func(t *testing.T) {
		s, img := get(t, true)
		reg := registrytest.Start(t)
		if _, err := image.Push(t.Context(), s, reg.Host+"/b:1", img.Target, image.PushOptions{Registry: client()}); err != nil {
			t.Fatal(err)
		}
		if got := reg.Manifest("b", "1"); !bytes.Equal(got, from.Manifest("a", "1")) {
			t.Errorf("registry has %s", got)
		}
	})
	t.Run("the only image that is here", func(t *testing.T) {
		s, img := get(t, false)
		reg := registrytest.Start(t)
		sent, err := image.Push(t.Context(), s, reg.Host+"/b:1", img.Target, image.PushOptions{Registry: client()})
		if err != nil {
			t.Fatal(err)
		}
		if want := index.Manifests[1].Digest; sent.Digest != want || digest.FromBytes(reg.Manifest("b", "1")) != want {
			t.Errorf("sent %s, want %s", sent.Digest, want)
		}
	})
	t.Run("one platform of all", func(t *testing.T) {
		s, img := get(t, true)
		reg := registrytest.Start(t)
		sent, err := image.Push(t.Context(), s, reg.Host+"/b:1", img.Target, image.PushOptions{
			Registry: client(), Platforms: []ocispec.Platform{{OS: "linux", Architecture: "arm64"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if want := index.Manifests[0].Digest; sent.Digest != want || reg.Manifest("b", index.Manifests[1].Digest.String()) != nil {
			t.Errorf("sent %s, want %s alone", sent.Digest, want)
		}
	})
	t.Run("some of it needs a choice", func(t *testing.T) {
		s, img := get(t, true)
		if err := s.Content.Delete(t.Context(), index.Manifests[2].Digest); err != nil {
			t.Fatal(err)
		}
		reg := registrytest.Start(t)
		_, err := image.Push(t.Context(), s, reg.Host+"/b:1", img.Target, image.PushOptions{Registry: client()})
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(fmt.Sprint(err), "linux/arm64, linux/amd64") {
			t.Errorf("error is %v", err)
		}
	})
}

func TestPushToARegistryThatBreaks(t *testing.T) {
	isPut := func(r *http.Request) bool {
		return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/blobs/")
	}
	for _, tt := range []struct {
		name  string
		fault func(n int, w http.ResponseWriter, r *http.Request) bool
		kind  func(error) bool // nil: the push succeeds
		says  string
	}{
		{"once, and the bytes are sent again", func(n int, _ http.ResponseWriter, r *http.Request) bool {
			if n > 1 {
				return false
			}
			_, _ = r.Body.Read(make([]byte, 1000))
			panic(http.ErrAbortHandler)
		}, nil, ""},
		{"with 503 for a while", func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n > 2 {
				return false
			}
			registrytest.Refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE", "busy")
			return true
		}, nil, ""},
		{"for good", func(_ int, _ http.ResponseWriter, _ *http.Request) bool { panic(http.ErrAbortHandler) }, errdefs.IsUnavailable, ""},
		{"by taking no bytes", func(_ int, _ http.ResponseWriter, _ *http.Request) bool { time.Sleep(time.Second); return true }, errdefs.IsUnavailable, ""},
		{"by refusing", func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			registrytest.Refuse(w, http.StatusForbidden, "DENIED", "requested access to the resource is denied")
			return true
		}, errdefs.IsPermissionDenied, "requested access to the resource is denied (403)"},
		{"by storing something else", func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Docker-Content-Digest", digest.FromString("else").String())
			w.WriteHeader(http.StatusCreated)
			return true
		}, errdefs.IsFailedPrecondition, "stored it as"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, img, l := pulled(t)
			reg := registrytest.Start(t)
			n := make(chan int, 1)
			n <- 0
			dgst := digest.FromBytes(l.data).String()
			reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !isPut(r) || r.URL.Query().Get("digest") != dgst {
					return false
				}
				now := <-n + 1
				n <- now
				return tt.fault(now, w, r)
			})
			begin := time.Now()
			_, err := image.Push(t.Context(), s, reg.Host+"/b:1", img.Target, image.PushOptions{Registry: client()})
			if tt.kind == nil {
				if err != nil || reg.Manifest("b", "1") == nil {
					t.Errorf("error is %v", err)
				}
				return
			}
			if !tt.kind(err) || !strings.Contains(fmt.Sprint(err), tt.says) || !strings.Contains(fmt.Sprint(err), dgst) {
				t.Errorf("error is %v", err)
			}
			if reg.Manifest("b", "1") != nil {
				t.Error("the image is named though it is not whole")
			}
			if d := time.Since(begin); d > 10*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

func TestADockerImageStaysOne(t *testing.T) {
	from, s := registrytest.Start(t), stores(t, t.TempDir())
	plain := layerTar(t, file{name: "f", data: "x"})
	m := ocispec.Manifest{MediaType: remote.DockerManifest, Layers: []ocispec.Descriptor{from.PutBlob("a", remote.DockerLayer, gz(t, plain))}}
	m.SchemaVersion = 2
	m.Config = from.PutBlob("a", remote.DockerConfig, asJSON(ocispec.Image{RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(plain)}}}))
	from.PutManifest("a", "1", remote.DockerManifest, m)
	img, err := pull(t, s, from.Host+"/a:1")
	if err != nil {
		t.Fatal(err)
	}
	reg := registrytest.Start(t)
	if _, err := image.Push(t.Context(), s, reg.Host+"/b:1", img.Target, image.PushOptions{Registry: client()}); err != nil {
		t.Fatal(err)
	}
	if got := reg.Manifest("b", "1"); !bytes.Equal(got, from.Manifest("a", "1")) {
		t.Errorf("registry has %s", got)
	}
}
