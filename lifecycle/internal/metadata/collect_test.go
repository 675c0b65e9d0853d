package metadata_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/image"
	"github.com/gantryd/gantry/store/snapshot"
)

const (
	gcRoot    = "containerd.io/gc.root"
	gcExpire  = "containerd.io/gc.expire"
	gcContent = "containerd.io/gc.ref.content."
	gcImage   = "containerd.io/gc.ref.image."
	gcOverlay = "containerd.io/gc.ref.snapshot.overlayfs"
	gcCond    = "containerd.io/gc.cond.snapshot"
)

var (
	past   = time.Now().Add(-time.Hour).Format(time.RFC3339)
	future = time.Now().Add(time.Hour).Format(time.RFC3339)
)

// things is what a namespace has, by name: "blob:TEXT", "image:NAME", "snap:KEY".
func (s *stores) things(t testing.TB, ns string, texts ...string) (all []string) {
	t.Helper()
	ctx := t.Context()
	known := map[digest.Digest]string{}
	for _, text := range texts {
		known[digest.FromString(text)] = text
	}
	err := s.Content(metadata.Scope{Namespace: ns}).Walk(ctx, func(i content.Info) error {
		all = append(all, "blob:"+known[i.Digest])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range must[[]image.Image](t)(s.Images(ns).List(ctx)) {
		all = append(all, "image:"+img.Name)
	}
	sn := must[*metadata.Snapshots](t)(s.Snapshots(metadata.Scope{Namespace: ns}, ""))
	err = sn.Walk(ctx, func(i snapshot.Info) error {
		all = append(all, "snap:"+i.Name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

func TestWhatIsReferredToStaysAndTheRestGoes(t *testing.T) {
	type labels = map[string]string
	ref := func(text string) string { return digest.FromString(text).String() }
	for _, tt := range []struct {
		name   string
		blobs  map[string]labels // by text
		images map[string]struct {
			target string
			labels labels
		}
		snaps []string          // "KEY" or "KEY<PARENT", made and committed in this order
		on    map[string]labels // of snapshots
		ctr   string            // the snapshot of a container
		lease map[string]struct {
			labels    labels
			resources []string // "content TEXT", "images NAME", "snapshots/overlayfs KEY"
		}
		want string
	}{
		{name: "nothing refers", blobs: map[string]labels{"a": nil}, snaps: []string{"s"}, want: ""},
		{name: "a root label", blobs: map[string]labels{"a": {gcRoot: "x"}, "b": nil}, snaps: []string{"s", "t"}, on: map[string]labels{"s": {gcRoot: "x"}}, want: "blob:a snap:s"},
		{
			name: "an image holds its tree, and the snapshot that it names",
			blobs: map[string]labels{
				"manifest": {gcContent + "config": ref("config"), gcContent + "l.0": ref("layer")},
				"config":   {gcOverlay: "top"}, "layer": nil, "other": nil,
			},
			images: map[string]struct {
				target string
				labels labels
			}{"i": {target: "manifest"}},
			snaps: []string{"base", "top<base", "lone<base"},
			want:  "blob:config blob:layer blob:manifest image:i snap:base snap:top",
		},
		{
			name:  "an image that expired goes, and one that has not stays",
			blobs: map[string]labels{"a": nil, "b": nil},
			images: map[string]struct {
				target string
				labels labels
			}{"old": {"a", labels{gcExpire: past}}, "new": {"b", labels{gcExpire: future}}},
			want: "blob:b image:new",
		},
		{
			name:  "an image that expired stays while one refers to it",
			blobs: map[string]labels{"a": nil, "b": nil},
			images: map[string]struct {
				target string
				labels labels
			}{"old": {"a", labels{gcExpire: past}}, "new": {"b", labels{gcImage + "x": "old"}}},
			want: "blob:a blob:b image:new image:old",
		},
		{name: "a container holds its snapshot", snaps: []string{"base", "rw<base", "x<base"}, ctr: "rw", want: "snap:base snap:rw"},
		{
			name:  "a back reference keeps the child",
			blobs: map[string]labels{"parent": {gcRoot: "x"}, "child": {"containerd.io/gc.bref.content": ref("parent")}, "orphan": {"containerd.io/gc.bref.content.x": ref("none")}},
			want:  "blob:child blob:parent",
		},
		{
			name: "a condition keeps a blob as long as a snapshot was used",
			blobs: map[string]labels{
				"new":   {gcCond + ".overlayfs": "usedat<2h|used"},
				"old":   {gcCond + ".overlayfs": "usedat<30m|used"},
				"aged":  {gcCond + ".overlayfs/x": "usedat<1m,usedat>30m|used"},
				"odd":   {gcCond + ".overlayfs": "usedat=1h|used", gcCond + ".overlayfs/a": "moon<2h|used", gcCond + ".overlayfs/b": "used"},
				"never": {gcCond + ".overlayfs": "usedat<2h|unused"},
				"lost":  {gcCond + ".overlayfs": "usedat<2h|garbage"},
			},
			snaps: []string{"used", "unused", "garbage"},
			on: map[string]labels{
				"used": {gcRoot: "x", "containerd.io/gc.cond.value-usedat": past}, "unused": {gcRoot: "x"},
				"garbage": {"containerd.io/gc.cond.value-usedat": past},
			},
			want: "blob:aged blob:new snap:unused snap:used",
		},
		{
			name:  "a lease holds the tree below",
			blobs: map[string]labels{"a": {gcContent + "x": ref("b")}, "b": {gcOverlay + "/x": "s"}, "c": nil},
			snaps: []string{"s", "t"},
			lease: map[string]struct {
				labels    labels
				resources []string
			}{"l": {nil, []string{"content a"}}},
			want: "blob:a blob:b snap:s",
		},
		{
			name:  "a flat lease holds only what it names, with the parents of a snapshot",
			blobs: map[string]labels{"a": {gcContent + "x": ref("b")}, "b": nil},
			snaps: []string{"base", "s<base"},
			lease: map[string]struct {
				labels    labels
				resources []string
			}{"l": {labels{"containerd.io/gc.flat": "x"}, []string{"content a", "snapshots/overlayfs s"}}},
			want: "blob:a snap:base snap:s",
		},
		{
			name:  "a lease that expired holds nothing; a time that is none is none",
			blobs: map[string]labels{"a": nil, "b": nil},
			lease: map[string]struct {
				labels    labels
				resources []string
			}{"old": {labels{gcExpire: past}, []string{"content a"}}, "odd": {labels{gcExpire: "soon"}, []string{"content b"}}},
			want: "blob:b",
		},
		{name: "a circle that nothing holds goes", blobs: map[string]labels{"a": {gcContent + "x": ref("b")}, "b": {gcContent + "x": ref("a")}}, want: ""},
		{name: "a circle that is held ends", blobs: map[string]labels{"a": {gcContent + "x": ref("b"), gcRoot: "x"}, "b": {gcContent + "x": ref("a")}}, want: "blob:a blob:b"},
		{name: "a label that only looks like one is none", blobs: map[string]labels{"a": {gcRoot: "x", "containerd.io/gc.ref.contents": ref("b")}, "b": nil}, want: "blob:a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := open(t, t.TempDir())
			ctx := t.Context()
			// Everything is made under a lease, so that nothing goes before its time.
			leases := s.Leases("ns")
			must[*leasesapi.Lease](t)(leases.Create("making", nil))
			making := metadata.Scope{Namespace: "ns", Lease: "making"}
			for _, text := range slices.Sorted(maps.Keys(tt.blobs)) {
				must[digest.Digest](t)(write(ctx, s.Content(making), text, tt.blobs[text]))
			}
			sn := must[*metadata.Snapshots](t)(s.Snapshots(making, ""))
			for _, spec := range tt.snaps {
				key, parent, _ := strings.Cut(spec, "<")
				if _, err := sn.Prepare(ctx, key+"-active", parent, nil); err != nil {
					t.Fatal(err)
				}
				if err := sn.Commit(ctx, key, key+"-active", tt.on[key]); err != nil {
					t.Fatal(err)
				}
			}
			for name, i := range tt.images {
				must[image.Image](t)(s.Images("ns").Create(ctx, image.Image{
					Name: name, Labels: i.labels,
					Target: ocispec.Descriptor{MediaType: "m", Digest: digest.FromString(i.target), Size: 1},
				}))
			}
			if tt.ctr != "" {
				must[*containersapi.Container](t)(s.Containers("ns").Create(&containersapi.Container{
					ID: "c", Runtime: &containersapi.Container_Runtime{Name: "r"}, Spec: &anypb.Any{}, Snapshotter: "overlayfs", SnapshotKey: tt.ctr,
				}))
			}
			for id, l := range tt.lease {
				must[*leasesapi.Lease](t)(leases.Create(id, l.labels))
				for _, r := range l.resources {
					kind, id2, _ := strings.Cut(r, " ")
					if kind == "content" {
						id2 = ref(id2)
					}
					if err := leases.Add(id, &leasesapi.Resource{Type: kind, ID: id2}); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := leases.Delete("making"); err != nil {
				t.Fatal(err)
			}
			s.Collect()
			s.Collect() // what was noted after the first mark
			if got := strings.Join(s.things(t, "ns", slices.Collect(maps.Keys(tt.blobs))...), " "); got != tt.want {
				t.Errorf("left is %q, want %q", got, tt.want)
			}
			blobs, snaps := strings.Count(tt.want, "blob:"), strings.Count(tt.want, "snap:")
			if got := s.blobs(t); len(got) != blobs {
				t.Errorf("%d blobs are in the store, want %d", len(got), blobs)
			}
			if got := s.snapshotDirs(t); got != snaps {
				t.Errorf("%d snapshots are in the store, want %d", got, snaps)
			}
		})
	}
}

// Several clients pull and drop images while garbage is collected without pause:
// what a lease or an image holds is always there, and in the end nothing is.
func TestNothingInUseIsEverCollected(t *testing.T) {
	s := open(t, t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var clients, collector sync.WaitGroup
	stop := make(chan struct{})
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				s.Collect()
			}
		}
	})
	for i := range 4 {
		clients.Go(func() {
			c := &client{stores: s, ns: name("ns", i%2), rand: rand.New(rand.NewPCG(1, uint64(i))), id: i}
			for n := 0; ctx.Err() == nil; n++ {
				if err := c.pullAndDrop(n); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	close(stop)
	collector.Wait()
	for i := range 2 {
		for _, img := range must[[]image.Image](t)(s.Images(name("ns", i)).List(t.Context())) {
			if err := s.Images(name("ns", i)).Delete(t.Context(), img.Name); err != nil {
				t.Error(err)
			}
		}
	}
	s.Collect()
	if left := s.blobs(t); len(left) > 0 {
		t.Errorf("blobs are left: %v", left)
	}
	if n := s.snapshotDirs(t); n > 0 {
		t.Errorf("%d snapshots are left", n)
	}
}

// client pulls images that share layers with those of others.
type client struct {
	*stores
	ns   string
	rand *rand.Rand
	id   int
}

func (c *client) pullAndDrop(n int) error {
	ctx := context.Background()
	leases := c.Leases(c.ns)
	l, err := leases.Create("", map[string]string{gcExpire: future})
	if err != nil {
		return err
	}
	scope := metadata.Scope{Namespace: c.ns, Lease: l.ID}
	layers := []string{name("shared", c.rand.IntN(3)), name("shared", c.rand.IntN(3)), fmt.Sprintf("own-%d-%d", c.id, n)}
	labels := map[string]string{}
	for i, text := range layers {
		dgst, err := write(ctx, c.Content(scope), text, nil)
		// Unavailable: another writes the same ref at the moment.
		if err != nil && !errdefs.IsAlreadyExists(err) {
			if errdefs.IsUnavailable(err) {
				return leases.Delete(l.ID)
			}
			return fmt.Errorf("write %s: %w", text, err)
		}
		labels[gcContent+name("l.", i)] = dgst.String()
	}
	key := fmt.Sprintf("snap-%d-%d", c.id, n)
	labels[gcOverlay] = key
	if err := c.unpack(ctx, scope, key); err != nil {
		return err
	}
	text := fmt.Sprintf("manifest-%d-%d", c.id, n)
	dgst, err := write(ctx, c.Content(scope), text, labels)
	if err != nil {
		return err
	}
	img := image.Image{Name: name("image", c.id), Target: ocispec.Descriptor{MediaType: "m", Digest: dgst, Size: int64(len(text))}}
	if _, err := c.Images(c.ns).Create(ctx, img); err != nil {
		return err
	}
	if err := leases.Delete(l.ID); err != nil {
		return err
	}
	if err := c.complete(ctx, append(layers, text), key); err != nil {
		return err
	}
	return c.Images(c.ns).Delete(ctx, img.Name)
}

func (c *client) unpack(ctx context.Context, scope metadata.Scope, key string) error {
	sn, err := c.Snapshots(scope, "")
	if err != nil {
		return err
	}
	if _, err := sn.Prepare(ctx, key+"-active", "", nil); err != nil {
		return err
	}
	return sn.Commit(ctx, key, key+"-active", nil)
}

// complete says what of an image is missing.
func (c *client) complete(ctx context.Context, texts []string, key string) error {
	scope := metadata.Scope{Namespace: c.ns}
	for _, text := range texts {
		ra, err := c.Content(scope).ReaderAt(ctx, ocispec.Descriptor{Digest: digest.FromString(text)})
		if err != nil {
			return fmt.Errorf("blob %q of an image in use: %w", text, err)
		}
		ra.Close()
	}
	sn, err := c.Snapshots(scope, "")
	if err != nil {
		return err
	}
	if _, err := sn.Stat(ctx, key); err != nil {
		return fmt.Errorf("snapshot of an image in use: %w", err)
	}
	return nil
}

// An ingest that nobody committed is kept for a resume, and not for ever.
func TestAnIngestIsKeptForAResume(t *testing.T) {
	s := open(t, t.TempDir())
	ctx := t.Context()
	c := s.Content(metadata.Scope{Namespace: "ns"})
	begin := func(c metadata.Content, ref string) {
		w := must[content.Writer](t)(c.Writer(ctx, ref, ocispec.Descriptor{}))
		must[int](t)(w.Write([]byte("half")))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	begin(c, "kept")
	must[*leasesapi.Lease](t)(s.Leases("ns").Create("l", nil))
	begin(s.Content(metadata.Scope{Namespace: "ns", Lease: "l"}), "leased")
	s.Collect()
	if st := must[[]content.Status](t)(c.ListStatuses(ctx)); len(st) != 2 || st[0].Offset != 4 {
		t.Errorf("ingests are %v", st)
	}
	if err := s.Leases("ns").Delete("l"); err != nil {
		t.Fatal(err)
	}
	s.Collect()
	if st := must[[]content.Status](t)(c.ListStatuses(ctx)); len(st) != 1 || st[0].Ref != "kept" {
		t.Errorf("ingests are %v", st)
	}
	if below := must[[]content.Status](t)(s.content.ListStatuses(ctx)); len(below) != 1 {
		t.Errorf("ingests in the store are %v", below)
	}
}

// A containerd may have snapshotters that we have not: what is theirs stays.
func TestSnapshotsOfASnapshotterThatIsNotHereStay(t *testing.T) {
	root := t.TempDir()
	s := openAs(t, root, "zfs")
	must[*leasesapi.Lease](t)(s.Leases("ns").Create("l", nil))
	view := func(s *stores, lease string) *metadata.Snapshots {
		return must[*metadata.Snapshots](t)(s.Snapshots(metadata.Scope{Namespace: "ns", Lease: lease}, "zfs"))
	}
	if _, err := view(s, "l").Prepare(t.Context(), "theirs", "", nil); err != nil {
		t.Fatal(err)
	}
	s.close(t)
	s = open(t, root)
	if _, err := s.Snapshots(metadata.Scope{Namespace: "ns"}, "zfs"); !errdefs.IsInvalidArgument(err) {
		t.Errorf("snapshots of zfs: %v", err)
	}
	if err := s.Leases("ns").Delete("l"); err != nil {
		t.Fatal(err)
	}
	s.Collect()
	s.close(t)
	s = openAs(t, root, "zfs")
	if _, err := view(s, "").Stat(t.Context(), "theirs"); err != nil {
		t.Errorf("their snapshot: %v", err)
	}
	s.Collect() // it is theirs to collect
	if _, err := view(s, "").Stat(t.Context(), "theirs"); !errdefs.IsNotFound(err) {
		t.Errorf("their snapshot: %v", err)
	}
}
