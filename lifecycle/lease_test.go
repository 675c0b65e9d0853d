package lifecycle_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote/registrytest"
)

// stall has the registry send the half of a blob, and no more.
func stall(reg *registrytest.Registry, name string, dgst digest.Digest) {
	reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, dgst.String()) {
			return false
		}
		data := reg.Blob(name, dgst)
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		w.Write(data[:len(data)/2])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return true
	})
}

func (a *api) leaseIDs(t *testing.T, ctx context.Context) (ids []string) {
	t.Helper()
	for _, l := range ok(a.leases.List(ctx, &leasesapi.ListRequest{}))(t).Leases {
		ids = append(ids, l.ID)
	}
	return ids
}

// collect collects garbage.
func (a *api) collect(t *testing.T, ctx context.Context) {
	t.Helper()
	ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "collect"}))(t)
	ok(a.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "collect", Sync: true}))(t)
}

// What a daemon had pulled when it was killed is there for the pull that goes on, and
// is the image's alone when that is done.
func TestAPullThatWasKilledIsTakenUpAgainAndForgotten(t *testing.T) {
	reg := registrytest.Start(t)
	whole, half := fileTar(t, "whole", "whole"), fileTar(t, "half", strings.Repeat("half", 1<<18))
	first, second := reg.PutBlob("a", ocispec.MediaTypeImageLayer, whole), reg.PutBlob("a", ocispec.MediaTypeImageLayer, half)
	config := ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{first.Digest, second.Digest}}}
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{first, second}}
	m.SchemaVersion, m.Config = 2, reg.PutBlob("a", ocispec.MediaTypeImageConfig, ok(json.Marshal(config))(t))
	reg.PutManifest("a", "latest", m.MediaType, m)
	ref := reg.Host + "/a:latest"
	to := func() *transfertypes.ImageStore {
		return &transfertypes.ImageStore{Unpacks: []*transfertypes.UnpackConfiguration{{Snapshotter: "overlayfs"}}}
	}

	d, ctx := newDaemon(t), in("ns")
	cmd := d.startToKill(t)
	d.await(t)
	a := d.dial(t)
	stall(reg, "a", second.Digest)
	cut := make(chan error, 1)
	go func() { cut <- a.pull(t, ctx, ref, to()) }()
	eventually(t, "one layer is there, and half of the other", func() error {
		list := ok(a.content.ListStatuses(ctx, &contentapi.ListStatusesRequest{}))(t)
		if len(list.Statuses) != 1 || list.Statuses[0].Offset == 0 || !a.hasSnapshot(ctx, "overlayfs", first.Digest.String()) {
			return fmt.Errorf("ingests: %v", list.Statuses)
		}
		return nil
	})
	cmd.Process.Kill()
	cmd.Wait()
	if err := <-cut; err == nil {
		t.Error("the pull has succeeded")
	}

	d.startOurs(t)
	a = d.dial(t)
	a.collect(t, ctx)
	if l := ok(a.leases.List(ctx, &leasesapi.ListRequest{}))(t).Leases; len(l) != 1 || !endsWithin(t, l[0], time.Hour) {
		t.Errorf("what nobody pulls again is kept by %v", l)
	}
	reg.Intercept(nil)
	before := len(reg.Log())
	if err := a.pull(t, ctx, ref, to()); err != nil {
		t.Fatal(err)
	}
	asked := reg.Log()[before:]
	if slices.ContainsFunc(asked, func(r string) bool { return strings.Contains(r, first.Digest.String()) }) {
		t.Errorf("the layer that was there was fetched again: %q", asked)
	}
	if !slices.ContainsFunc(asked, func(r string) bool { return strings.Contains(r, second.Digest.String()+" bytes=") }) {
		t.Errorf("the layer of which a half was there was fetched from its beginning: %q", asked)
	}
	if left := a.leaseIDs(t, ctx); len(left) > 0 {
		t.Errorf("leases are left: %v", left)
	}
	ok(a.images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: ref, Sync: true}))(t)
	if left := ok(a.blobs(ctx))(t); len(left) > 0 || a.hasSnapshot(ctx, "overlayfs", first.Digest.String()) {
		t.Errorf("the image is removed, and left are %v and its snapshots", left)
	}
}

// endsWithin says whether a lease ends by itself so soon.
func endsWithin(t *testing.T, l *leasesapi.Lease, d time.Duration) bool {
	t.Helper()
	return ok(time.Parse(time.RFC3339, l.Labels["containerd.io/gc.expire"]))(t).Before(time.Now().Add(d + time.Second))
}

// A pull that is done takes no lease from one of the same image that is under way.
func TestAPullsLeaseIsItsOwn(t *testing.T) {
	reg := registrytest.Start(t)
	_, chains := serveImage(t, reg, "a", ocispec.Platform{OS: "linux", Architecture: "amd64"}, ocispec.Platform{OS: "linux", Architecture: "arm64"})
	d, ctx := newDaemon(t), in("ns")
	d.startOurs(t)
	a := d.dial(t)
	of := func(arch string) *transfertypes.ImageStore {
		return &transfertypes.ImageStore{Platforms: []*types.Platform{{OS: "linux", Architecture: arch}}}
	}
	stall(reg, "a", digest.Digest(chains[1]))
	slow, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.pull(t, slow, reg.Host+"/a:latest", of("arm64")) }()
	var leases []string
	eventually(t, "the first pull has a lease", func() error {
		if leases = a.leaseIDs(t, ctx); len(leases) != 1 {
			return fmt.Errorf("leases: %v", leases)
		}
		return nil
	})
	if err := a.pull(t, ctx, reg.Host+"/a:latest", of("amd64")); err != nil {
		t.Error(err)
	}
	if now := a.leaseIDs(t, ctx); !slices.Equal(now, leases) {
		t.Errorf("leases were %v, and are %v", leases, now)
	}
	end()
	if err := <-ended; err == nil {
		t.Error("the first pull has succeeded")
	}
}

// An import begins anew when it is done again: nothing is kept for it.
func TestAnImportThatWasKilledLeavesNoLease(t *testing.T) {
	d, ctx := newDaemon(t), in("ns")
	cmd := d.startToKill(t)
	d.await(t)
	a := d.dial(t)
	from := a.stream(t, ctx, "from")
	cut := make(chan error, 1)
	go func() {
		_, err := transferapi.NewTransferClient(a.ClientConnInterface).Transfer(ctx, &transferapi.TransferRequest{
			Source:      anyOf(t, &transfertypes.ImageImportStream{Stream: "from"}),
			Destination: anyOf(t, &transfertypes.ImageStore{Name: "a"}),
		})
		cut <- err
	}()
	from.put(t, &transfertypes.Data{Data: bytes.Repeat([]byte{0}, 100)})
	eventually(t, "the import has a lease", func() error {
		if ids := a.leaseIDs(t, ctx); len(ids) != 1 {
			return fmt.Errorf("leases: %v", ids)
		}
		return nil
	})
	cmd.Process.Kill()
	cmd.Wait()
	if err := <-cut; err == nil {
		t.Error("the import has succeeded")
	}
	d.startOurs(t)
	if left := d.dial(t).leaseIDs(t, ctx); len(left) > 0 {
		t.Errorf("leases are left: %v", left)
	}
}
