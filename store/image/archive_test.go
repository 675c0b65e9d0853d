package image_test

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote/registrytest"
	"github.com/gantryd/gantry/store/image"
)

// skopeo runs Debian's skopeo.
func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	bin, err := exec.LookPath("skopeo")
	if err != nil {
		t.Fatal("needs Debian's package skopeo")
	}
	out, err := exec.Command(bin, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo %q: %v: %s", args, err, out)
	}
	return string(out)
}

func exported(t *testing.T, s image.Stores, o image.ExportOptions, images ...image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := image.Export(t.Context(), s, images, &b, o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func archiveFile(t *testing.T, archive []byte, name string, v any) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("find %s: %v", name, err)
		}
		if h.Name == name {
			if err := json.NewDecoder(r).Decode(v); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
}

func TestSkopeoReadsWhatExportWrites(t *testing.T) {
	s, img, _ := pulled(t)
	img.Name = "docker.io/library/app:1"
	file := filepath.Join(t.TempDir(), "a.tar")
	if err := os.WriteFile(file, exported(t, s, image.ExportOptions{}, img), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"docker-archive:" + file, "docker-archive:" + file + ":app:1", "oci-archive:" + file, "oci-archive:" + file + ":1"} {
		t.Run(from[:strings.Index(from, ":")], func(t *testing.T) {
			reg, other := registrytest.Start(t), stores(t, t.TempDir())
			skopeo(t, "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", from, "docker://"+reg.Host+"/copied:1")
			back, err := pull(t, other, reg.Host+"/copied:1")
			if err != nil {
				t.Fatal(err)
			}
			wantFile(t, tree(t, other, back.Target, nil), "f", big(1, 1<<20))
		})
	}
}

func TestImportReadsWhatSkopeoWrites(t *testing.T) {
	reg := registrytest.Start(t)
	serve(reg, "src", "1", gzipLayer(t, file{name: "f", data: "hello"}), gzipLayer(t, file{name: "g", data: "again"}), gzipLayer(t, file{name: "h", data: "more"}))
	for _, tt := range []struct{ to, name string }{
		{"docker-archive:FILE:app:2", "docker.io/library/app:2"},
		{"oci-archive:FILE:example.org/app:2", "example.org/app:2"},
		{"oci-archive:FILE:latest", "by@"}, // a tag alone is no name
		{"docker-archive:FILE", "by@"},
	} {
		t.Run(tt.to, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "a.tar")
			skopeo(t, "copy", "-q", "--insecure-policy", "--src-tls-verify=false", "docker://"+reg.Host+"/src:1", strings.Replace(tt.to, "FILE", file, 1))
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, form := range [][]byte{data, gz(t, data)} {
				s := stores(t, t.TempDir())
				images, err := image.Import(t.Context(), s, bytes.NewReader(form), image.ImportOptions{Unpack: true, Digests: "by"})
				if err != nil || len(images) != 1 || !strings.HasPrefix(images[0].Name, tt.name) {
					t.Fatalf("images are %v, %v", images, err)
				}
				dir := tree(t, s, images[0].Target, nil)
				wantFile(t, dir, "f", "hello")
				wantFile(t, dir, "h", "more")
				if left := ingests(t, s); len(left) != 0 {
					t.Errorf("ingests left: %v", left)
				}
			}
		})
	}
}

func TestExportAndImportAreEachOthersInverse(t *testing.T) {
	from, s := registrytest.Start(t), stores(t, t.TempDir())
	serveIndex(t, from, "a", "1", ocispec.MediaTypeImageIndex)
	img, err := image.Pull(t.Context(), s, from.Host+"/a:1", image.PullOptions{Registry: client(), AllPlatforms: true})
	if err != nil {
		t.Fatal(err)
	}
	second := img
	second.Name = "docker.io/library/also:1"
	archive := exported(t, s, image.ExportOptions{}, img, second)
	var docker []struct{ RepoTags []string }
	archiveFile(t, archive, "manifest.json", &docker)
	if len(docker) != 1 || fmt.Sprint(docker[0].RepoTags) != fmt.Sprint([]string{img.Name, "also:1"}) {
		t.Errorf("manifest.json has %v", docker)
	}
	if bytes.Contains(exported(t, s, image.ExportOptions{OnlyOCI: true}, img), []byte("manifest.json")) {
		t.Error("manifest.json is there, and was not wanted")
	}
	other := stores(t, t.TempDir())
	images, err := image.Import(t.Context(), other, bytes.NewReader(archive), image.ImportOptions{Unpack: true})
	if err != nil || len(images) != 2 || images[0].Name != img.Name || images[1].Name != second.Name {
		t.Fatalf("images are %v, %v", images, err)
	}
	if images[0].Target.Digest != img.Target.Digest {
		t.Errorf("target is %s, was %s", images[0].Target.Digest, img.Target.Digest)
	}
	wantFile(t, tree(t, other, images[0].Target, nil), "arch", "amd64")
	info, err := other.Content.Info(t.Context(), img.Target.Digest)
	if err != nil || len(info.Labels) < 3 {
		t.Errorf("labels of the index are %v, %v", info.Labels, err)
	}

	t.Run("one platform", func(t *testing.T) {
		p := &ocispec.Platform{OS: "linux", Architecture: "arm64"}
		archive := exported(t, s, image.ExportOptions{Platforms: []ocispec.Platform{*p}}, img)
		other := stores(t, t.TempDir())
		images, err := image.Import(t.Context(), other, bytes.NewReader(archive), image.ImportOptions{Unpack: true, Platform: p})
		if err != nil || len(images) != 1 {
			t.Fatalf("images are %v, %v", images, err)
		}
		wantFile(t, tree(t, other, images[0].Target, p), "arch", "arm64")
	})
	t.Run("a platform that is not in it", func(t *testing.T) {
		s := stores(t, t.TempDir())
		_, err := image.Import(t.Context(), s, bytes.NewReader(archive), image.ImportOptions{Unpack: true, Platform: &ocispec.Platform{OS: "linux", Architecture: "s390x"}})
		if !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), "linux/s390x") {
			t.Errorf("error is %v", err)
		}
		nothingHalf(t, s)
	})
	t.Run("an index of which one platform was pulled", func(t *testing.T) {
		s := stores(t, t.TempDir())
		img, err := image.Pull(t.Context(), s, from.Host+"/a:1", image.PullOptions{Registry: client(), Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64"}})
		if err != nil {
			t.Fatal(err)
		}
		other := stores(t, t.TempDir())
		images, err := image.Import(t.Context(), other, bytes.NewReader(exported(t, s, image.ExportOptions{}, img)), image.ImportOptions{Unpack: true})
		if err != nil || len(images) != 1 || images[0].Target.Digest != img.Target.Digest {
			t.Fatalf("images are %v, %v", images, err)
		}
	})
	t.Run("a digest is no name elsewhere", func(t *testing.T) {
		nameless := img
		nameless.Name = "moby-dangling@" + img.Target.Digest.String()
		archive := exported(t, s, image.ExportOptions{}, nameless)
		var index ocispec.Index
		archiveFile(t, archive, "index.json", &index)
		if len(index.Manifests) != 1 || len(index.Manifests[0].Annotations) != 0 {
			t.Errorf("index.json has %+v", index.Manifests)
		}
		images, err := image.Import(t.Context(), stores(t, t.TempDir()), bytes.NewReader(archive), image.ImportOptions{Unpack: true, Digests: "moby-dangling"})
		if err != nil || len(images) != 1 || images[0].Name != nameless.Name {
			t.Errorf("images are %v, %v", images, err)
		}
	})
}

func TestExportOfWhatIsNotWholeWritesNothing(t *testing.T) {
	s, img, l := pulled(t)
	if err := s.Content.Delete(t.Context(), digest.FromBytes(l.data)); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	err := image.Export(t.Context(), s, []image.Image{img}, &b, image.ExportOptions{})
	if !errdefs.IsNotFound(err) || b.Len() != 0 || !strings.Contains(err.Error(), img.Name) {
		t.Errorf("error is %v, after %d bytes", err, b.Len())
	}
}

// oldSave is an archive as docker save wrote it before version 25.
func oldSave(t *testing.T, layers ...[]byte) []file {
	t.Helper()
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers"}}
	var files []file
	var names []string
	for i, l := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(l))
		id := fmt.Sprintf("%064d", i)
		files = append(files, file{name: id + "/"}, file{name: id + "/VERSION", data: "1.0"}, file{name: id + "/json", data: "{}"})
		if i == 1 { // docker links layers that are the same, podman all of them
			files = append(files, file{name: "elsewhere.tar", data: string(l)}, file{name: id + "/layer.tar", link: "../elsewhere.tar"})
		} else {
			files = append(files, file{name: id + "/layer.tar", data: string(l)})
		}
		names = append(names, id+"/layer.tar")
	}
	c := asJSON(config)
	name := digest.FromBytes(c).Encoded() + ".json"
	return append(files,
		file{name: name, data: string(c)},
		file{name: "manifest.json", data: string(asJSON([]map[string]any{{"Config": name, "RepoTags": []string{"app:1", "example.org/app:2"}, "Layers": names}}))},
		file{name: "repositories", data: "{}"},
	)
}

func TestImportReadsWhatOldDockerSaves(t *testing.T) {
	s := stores(t, t.TempDir())
	archive := layerTar(t, oldSave(t, layerTar(t, file{name: "f", data: "one"}), layerTar(t, file{name: "g", data: "two"}))...)
	images, err := image.Import(t.Context(), s, bytes.NewReader(archive), image.ImportOptions{Unpack: true})
	if err != nil || len(images) != 2 || images[0].Name != "docker.io/library/app:1" || images[1].Name != "example.org/app:2" {
		t.Fatalf("images are %v, %v", images, err)
	}
	dir := tree(t, s, images[0].Target, nil)
	wantFile(t, dir, "f", "one")
	wantFile(t, dir, "g", "two")
}

func TestArchivesThatAreNotWhatTheySay(t *testing.T) {
	l := layerTar(t, file{name: "f", data: "one"})
	whole := oldSave(t, l)
	s0, img, _ := pulled(t)
	oci := exported(t, s0, image.ExportOptions{}, img)
	for _, tt := range []struct {
		name string
		data []byte
		says string
	}{
		{"no archive", []byte("hello, this is not a tar, and it is long enough for one, at least a block: " + strings.Repeat("x", 1000)), "read archive"},
		{"nothing at all", nil, "neither an OCI layout"},
		{"a tar of something else", layerTar(t, file{name: "f", data: "x"}), "neither an OCI layout"},
		{"cut off", oci[:len(oci)/2], "read archive"},
		{"a blob of another digest", bytes.Replace(oci, []byte(`"architecture":"amd64"`), []byte(`"architecture":"arm64"`), 1), "sha256:"},
		{"a blob's name that leads out", layerTar(t, file{name: "blobs/sha256/../../../x", data: "x"}, file{name: "blobs/sha256/..%2fx", data: "x"}), "invalid"},
		{"a layer that is not in it", layerTar(t, whole[len(whole)-3:]...), "which is not in the archive"},
		{"links in a circle", layerTar(t, append(whole[4:], file{name: strings.Repeat("0", 64) + "/layer.tar", link: "../x"}, file{name: "x", link: strings.Repeat("0", 64) + "/layer.tar"})...), "which is not in the archive"},
		{"a name that is none", layerTar(t, append(whole[:len(whole)-2:len(whole)-2], file{name: "manifest.json", data: `[{"Config":"` + whole[len(whole)-3].name + `","RepoTags":["NOT A NAME"],"Layers":[]}]`})...), "NOT A NAME"},
		{"an index that lacks its manifests", layerTar(t, file{name: "oci-layout", data: `{"imageLayoutVersion":"1.0.0"}`},
			file{name: "index.json", data: `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":3,"digest":"` + digest.FromString("x").String() + `"}]}`}), "not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := stores(t, t.TempDir())
			images, err := image.Import(t.Context(), s, bytes.NewReader(tt.data), image.ImportOptions{Unpack: true})
			if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("images are %v, error is %v", images, err)
			}
			nothingHalf(t, s)
		})
	}
}

func TestAnArchiveWhoseSenderGoesAway(t *testing.T) {
	s := stores(t, t.TempDir())
	gone := errors.New("connection reset")
	_, err := image.Import(t.Context(), s, io.MultiReader(bytes.NewReader(layerTar(t, oldSave(t, layerTar(t, file{name: "f", data: big(1, 1<<20)}))...)[:1<<19]), failing{gone}), image.ImportOptions{Unpack: true})
	if !errors.Is(err, gone) {
		t.Errorf("error is %v", err)
	}
	nothingHalf(t, s)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }
