package engine

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote/registrytest"
)

// leases are the IDs of all.
func (r *rig) leases() (ids []string) {
	resp, err := r.ctrd.Leases.List(r.t.Context(), &leasesapi.ListRequest{})
	check(r.t, err)
	for _, l := range resp.Leases {
		ids = append(ids, l.ID)
	}
	return ids
}

// What an engine had pulled when it was killed is there for the pull that goes on,
// and is the image's alone when that is done.
func TestAPullThatWasKilledIsTakenUpAgainAndForgotten(t *testing.T) {
	r := newRig(t)
	reg := registrytest.Start(t)
	var file bytes.Buffer
	w := tar.NewWriter(&file)
	check(t, w.WriteHeader(&tar.Header{Name: "file", Mode: 0o644, Size: 1 << 20}))
	_, err := w.Write(make([]byte, 1<<20))
	check(t, errors.Join(err, w.Close()))
	data := file.Bytes()
	layer := reg.PutBlob("a", ocispec.MediaTypeImageLayer, data)
	config, err := json.Marshal(ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{layer.Digest}},
	})
	check(t, err)
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{layer}}
	m.SchemaVersion, m.Config = 2, reg.PutBlob("a", ocispec.MediaTypeImageConfig, config)
	reg.PutManifest("a", "latest", m.MediaType, m)
	reg.Intercept(func(w http.ResponseWriter, req *http.Request) bool { // sends a half of the layer
		if !strings.HasSuffix(req.URL.Path, layer.Digest.String()) {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
		w.(http.Flusher).Flush()
		<-req.Context().Done()
		return true
	})
	pull := "/images/create?fromImage=" + reg.Host + "/a&tag=latest"
	cut := make(chan string, 1)
	go func() {
		_, out, err := r.try("POST", pull, nil)
		cut <- fmt.Sprint(string(out), err)
	}()
	r.eventually(func() error {
		list, err := r.ctrd.Content.ListStatuses(t.Context(), &contentapi.ListStatusesRequest{})
		check(t, err)
		if len(list.Statuses) != 1 || list.Statuses[0].Offset == 0 || !strings.Contains(list.Statuses[0].Ref, layer.Digest.String()) {
			return fmt.Errorf("ingests: %v", list.Statuses)
		}
		return nil
	})
	r.kill()
	if out := <-cut; strings.Contains(out, "Downloaded") {
		t.Errorf("the pull that was cut off says %s", out)
	}
	r.start()
	resp, err := r.ctrd.Leases.List(t.Context(), &leasesapi.ListRequest{})
	check(t, err)
	for _, l := range resp.Leases {
		end, err := time.Parse(time.RFC3339, l.Labels["containerd.io/gc.expire"])
		if err != nil || end.After(time.Now().Add(time.Hour+time.Second)) {
			t.Errorf("what nobody pulls again is kept by %v", l)
		}
	}
	if len(resp.Leases) == 0 {
		t.Error("no lease keeps what was pulled")
	}
	reg.Intercept(nil)
	before := len(reg.Log())
	if out := r.call("POST", pull, nil, 200, nil); !strings.Contains(string(out), "Downloaded") {
		t.Errorf("the pull says %s", out)
	}
	if asked := fmt.Sprint(reg.Log()[before:]); !strings.Contains(asked, layer.Digest.String()+" bytes=") {
		t.Errorf("the layer was fetched from its beginning: %s", asked)
	}
	if left := r.leases(); len(left) > 0 {
		t.Errorf("leases are left: %v", left)
	}
	r.call("DELETE", "/images/"+reg.Host+"/a:latest", nil, 200, nil)
	r.nothingLeft()
}
