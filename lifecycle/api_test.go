package lifecycle_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	"github.com/gantryd/gantry/internal/mount"
)

// answers is what the services answer. Every row runs in a namespace of its own,
// against lifecycle over a socket and within the process, and against a stock
// containerd: a row that not all of them pass is wrong.
var answers = []struct {
	name string
	run  func(t *testing.T, a *api, ctx context.Context, ns string)
}{
	{"a request without a namespace fails a precondition", func(t *testing.T, a *api, _ context.Context, _ string) {
		_, err := a.containers.List(context.Background(), &containersapi.ListContainersRequest{})
		wantCode(t, codes.FailedPrecondition, err)
		_, err = a.tasks.List(context.Background(), &tasksapi.ListTasksRequest{})
		wantCode(t, codes.FailedPrecondition, err)
	}},
	{"a namespace that is none is invalid", func(t *testing.T, a *api, _ context.Context, _ string) {
		_, err := a.containers.List(in("a/b"), &containersapi.ListContainersRequest{})
		wantCode(t, codes.InvalidArgument, err)
	}},

	{"a namespace that nobody made has no labels", func(t *testing.T, a *api, ctx context.Context, ns string) {
		r := ok(a.namespaces.Get(ctx, &namespacesapi.GetNamespaceRequest{Name: ns}))(t)
		if r.Namespace.Name != ns || len(r.Namespace.Labels) > 0 {
			t.Errorf("got %v", r.Namespace)
		}
	}},
	{"namespaces come, change their labels and go", func(t *testing.T, a *api, ctx context.Context, ns string) {
		make := &namespacesapi.CreateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: ns, Labels: map[string]string{"a": "1", "b": "2"}}}
		_, err := a.namespaces.Create(ctx, make)
		wantCode(t, codes.OK, err)
		_, err = a.namespaces.Create(ctx, make)
		wantCode(t, codes.AlreadyExists, err)
		_, err = a.namespaces.Create(ctx, &namespacesapi.CreateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: "-"}})
		wantCode(t, codes.InvalidArgument, err)
		_, err = a.namespaces.Update(ctx, &namespacesapi.UpdateNamespaceRequest{
			Namespace: &namespacesapi.Namespace{Name: ns, Labels: map[string]string{"b": "3"}}, UpdateMask: mask("labels.b"),
		})
		wantCode(t, codes.OK, err)
		wantLabels(t, a.namespaceLabels(t, ns), "a=1 b=3")
		_, err = a.namespaces.Update(ctx, &namespacesapi.UpdateNamespaceRequest{
			Namespace: &namespacesapi.Namespace{Name: ns, Labels: map[string]string{"c": "4"}},
		})
		wantCode(t, codes.OK, err)
		wantLabels(t, a.namespaceLabels(t, ns), "c=4")
		_, err = a.namespaces.Update(ctx, &namespacesapi.UpdateNamespaceRequest{Namespace: &namespacesapi.Namespace{Name: ns}, UpdateMask: mask("name")})
		wantCode(t, codes.InvalidArgument, err)
		_, err = a.namespaces.Delete(ctx, &namespacesapi.DeleteNamespaceRequest{Name: ns})
		wantCode(t, codes.OK, err)
		_, err = a.namespaces.Delete(ctx, &namespacesapi.DeleteNamespaceRequest{Name: ns})
		wantCode(t, codes.NotFound, err)
	}},
	{"a namespace that has something stays", func(t *testing.T, a *api, ctx context.Context, ns string) {
		ok(a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: container("c", nil)}))(t)
		_, err := a.namespaces.Delete(ctx, &namespacesapi.DeleteNamespaceRequest{Name: ns})
		wantCode(t, codes.FailedPrecondition, err)
	}},

	{"containers that are none are refused", func(t *testing.T, a *api, ctx context.Context, _ string) {
		for _, c := range []*containersapi.Container{
			{ID: "", Runtime: runtime},
			{ID: "a b", Runtime: runtime},
			{ID: strings.Repeat("x", 77), Runtime: runtime},
			{ID: "x/../y", Runtime: runtime},
			{ID: "no-runtime"},
			{ID: "key", Runtime: runtime, SnapshotKey: "k"},
			{ID: "labels", Runtime: runtime, Labels: map[string]string{"k": strings.Repeat("v", 4096)}},
			{ID: "extension", Runtime: runtime, Extensions: map[string]*anypb.Any{"": {TypeUrl: "x"}}},
		} {
			_, err := a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: c})
			if wantCode(t, codes.InvalidArgument, err); t.Failed() {
				t.Fatalf("container %q", c.ID)
			}
		}
		_, err := a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: container(strings.Repeat("x", 76), map[string]string{"k": strings.Repeat("v", 4095)})})
		wantCode(t, codes.OK, err)
	}},
	{"a container is created once, read, deleted once", func(t *testing.T, a *api, ctx context.Context, _ string) {
		c := container("c", map[string]string{"a": "1"})
		c.Extensions = map[string]*anypb.Any{"x": {TypeUrl: "u", Value: []byte("v")}}
		made := ok(a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: c}))(t).Container
		if age := time.Since(made.CreatedAt.AsTime()); age < 0 || age > time.Minute {
			t.Errorf("created %v ago", age)
		}
		_, err := a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: c})
		wantCode(t, codes.AlreadyExists, err)
		got := ok(a.containers.Get(ctx, &containersapi.GetContainerRequest{ID: "c"}))(t).Container
		if got.Image != c.Image || got.Runtime.Name != c.Runtime.Name || string(got.Spec.Value) != "{}" || string(got.Extensions["x"].Value) != "v" {
			t.Errorf("got %v", got)
		}
		_, err = a.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "c"})
		wantCode(t, codes.OK, err)
		_, err = a.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "c"})
		wantCode(t, codes.NotFound, err)
		_, err = a.containers.Get(ctx, &containersapi.GetContainerRequest{ID: "c"})
		wantCode(t, codes.NotFound, err)
	}},
	{"an update of a container obeys its field mask", func(t *testing.T, a *api, ctx context.Context, _ string) {
		c := container("c", map[string]string{"a": "1", "b": "2"})
		c.Extensions = map[string]*anypb.Any{"x": {TypeUrl: "u", Value: []byte("1")}, "y": {TypeUrl: "u", Value: []byte("1")}}
		ok(a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: c}))(t)
		update := func(change func(*containersapi.Container), paths ...string) (*containersapi.Container, error) {
			next := container("c", nil)
			change(next)
			r, err := a.containers.Update(ctx, &containersapi.UpdateContainerRequest{Container: next, UpdateMask: mask(paths...)})
			return r.GetContainer(), err
		}
		got, err := update(func(c *containersapi.Container) {
			c.Labels, c.Image = map[string]string{"b": "3", "c": "4"}, "other"
		}, "labels.b")
		wantCode(t, codes.OK, err)
		wantLabels(t, got.GetLabels(), "a=1 b=3")
		if got.GetImage() != c.Image {
			t.Errorf("image is %q", got.GetImage())
		}
		got, err = update(func(c *containersapi.Container) { c.Labels = map[string]string{"b": "", "d": "5"} }, "labels.b", "labels.d")
		wantCode(t, codes.OK, err)
		wantLabels(t, got.GetLabels(), "a=1 d=5")
		got, err = update(func(c *containersapi.Container) {
			c.Extensions = map[string]*anypb.Any{"x": {TypeUrl: "u", Value: []byte("2")}}
		}, "extensions.x")
		wantCode(t, codes.OK, err)
		if string(got.GetExtensions()["x"].GetValue()) != "2" || string(got.GetExtensions()["y"].GetValue()) != "1" {
			t.Errorf("extensions are %v", got.GetExtensions())
		}
		for _, path := range []string{"runtime", "snapshotter", "nosuch", "id"} {
			_, err = update(func(*containersapi.Container) {}, path)
			wantCode(t, codes.InvalidArgument, err)
		}
		_, err = update(func(c *containersapi.Container) { c.Snapshotter = "other" })
		wantCode(t, codes.InvalidArgument, err)
		got, err = update(func(c *containersapi.Container) { c.Image = "other" })
		wantCode(t, codes.OK, err)
		if got.GetImage() != "other" || len(got.GetLabels()) > 0 || len(got.GetExtensions()) > 0 {
			t.Errorf("got %v", got)
		}
		_, err = a.containers.Update(ctx, &containersapi.UpdateContainerRequest{Container: container("none", nil)})
		wantCode(t, codes.NotFound, err)
	}},
	{"filters choose containers", func(t *testing.T, a *api, ctx context.Context, _ string) {
		for id, labels := range map[string]map[string]string{"one": {"app": "web", "a.b/c": "x"}, "two": {"app": "db"}, "three": nil} {
			ok(a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: container(id, labels)}))(t)
		}
		for _, tt := range []struct {
			filters []string
			want    string
		}{
			{nil, "one three two"},
			{[]string{"labels.app==web"}, "one"},
			{[]string{"labels.app"}, "one two"},
			{[]string{`labels."a.b/c"==x`}, "one"},
			{[]string{"id==two", "labels.app==web"}, "one two"},
			{[]string{"labels.app,labels.app!=web"}, "two"},
			{[]string{"id~=^t"}, "three two"},
			{[]string{"image==img"}, "one three two"},
			{[]string{"runtime.name==io.containerd.runc.v2"}, "one three two"},
			{[]string{"nosuch==x"}, ""},
		} {
			r, err := a.containers.List(ctx, &containersapi.ListContainersRequest{Filters: tt.filters})
			wantCode(t, codes.OK, err)
			var ids []string
			for _, c := range r.GetContainers() {
				ids = append(ids, c.ID)
			}
			slices.Sort(ids)
			if got := strings.Join(ids, " "); got != tt.want {
				t.Errorf("%q: got %q, want %q", tt.filters, got, tt.want)
			}
		}
		_, err := a.containers.List(ctx, &containersapi.ListContainersRequest{Filters: []string{"id=x"}})
		wantCode(t, codes.InvalidArgument, err)
		s := ok(a.containers.ListStream(ctx, &containersapi.ListContainersRequest{Filters: []string{"id==one"}}))(t)
		m, err := s.Recv()
		if err != nil || m.Container.ID != "one" {
			t.Errorf("stream gives %v, %v", m, err)
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("stream goes on: %v", err)
		}
	}},

	{"images that are none are refused", func(t *testing.T, a *api, ctx context.Context, _ string) {
		for name, img := range map[string]*imagesapi.Image{
			"no name":    {Target: target("x")},
			"no digest":  {Name: "i", Target: &types.Descriptor{MediaType: "m", Size: 1}},
			"bad digest": {Name: "i", Target: &types.Descriptor{MediaType: "m", Size: 1, Digest: "sha256:x"}},
			"no size":    {Name: "i", Target: &types.Descriptor{MediaType: "m", Digest: digest.FromString("x").String()}},
			"no type":    {Name: "i", Target: &types.Descriptor{Size: 1, Digest: digest.FromString("x").String()}},
		} {
			_, err := a.images.Create(ctx, &imagesapi.CreateImageRequest{Image: img})
			if wantCode(t, codes.InvalidArgument, err); t.Failed() {
				t.Fatal(name)
			}
		}
	}},
	{"an image is created, updated by mask, deleted", func(t *testing.T, a *api, ctx context.Context, _ string) {
		img := &imagesapi.Image{Name: "docker.io/x:1", Target: target("x"), Labels: map[string]string{"a": "1", "b": "2"}}
		ok(a.images.Create(ctx, &imagesapi.CreateImageRequest{Image: img}))(t)
		_, err := a.images.Create(ctx, &imagesapi.CreateImageRequest{Image: img})
		wantCode(t, codes.AlreadyExists, err)
		r, err := a.images.Update(ctx, &imagesapi.UpdateImageRequest{
			Image: &imagesapi.Image{Name: img.Name, Target: target("y"), Labels: map[string]string{"b": "3"}}, UpdateMask: mask("labels.b"),
		})
		wantCode(t, codes.OK, err)
		wantLabels(t, r.GetImage().GetLabels(), "a=1 b=3")
		if r.GetImage().GetTarget().GetDigest() != target("x").Digest {
			t.Error("the target has changed")
		}
		r, err = a.images.Update(ctx, &imagesapi.UpdateImageRequest{Image: &imagesapi.Image{Name: img.Name, Target: target("y")}})
		wantCode(t, codes.OK, err)
		if r.GetImage().GetTarget().GetDigest() != target("y").Digest || len(r.GetImage().GetLabels()) > 0 {
			t.Errorf("got %v", r.GetImage())
		}
		_, err = a.images.Update(ctx, &imagesapi.UpdateImageRequest{Image: img, UpdateMask: mask("name")})
		wantCode(t, codes.InvalidArgument, err)
		_, err = a.images.Update(ctx, &imagesapi.UpdateImageRequest{Image: &imagesapi.Image{Name: "none", Target: target("y")}})
		wantCode(t, codes.NotFound, err)
		list := ok(a.images.List(ctx, &imagesapi.ListImagesRequest{Filters: []string{"name==docker.io/x:1"}}))(t)
		if len(list.Images) != 1 {
			t.Errorf("list gives %v", list.Images)
		}
		_, err = a.images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: img.Name, Sync: true})
		wantCode(t, codes.OK, err)
		_, err = a.images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: img.Name})
		wantCode(t, codes.NotFound, err)
		_, err = a.images.Get(ctx, &imagesapi.GetImageRequest{Name: img.Name})
		wantCode(t, codes.NotFound, err)
	}},

	{"a blob is written in pieces, resumed, committed", func(t *testing.T, a *api, ctx context.Context, ns string) {
		data := []byte(ns + " has a blob in pieces")
		dgst := digest.FromBytes(data)
		s := ok(a.content.Write(ctx))(t)
		ask := func(s contentapi.Content_WriteClient, r *contentapi.WriteContentRequest) (*contentapi.WriteContentResponse, error) {
			if err := s.Send(r); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			return s.Recv()
		}
		r, err := ask(s, &contentapi.WriteContentRequest{Action: contentapi.WriteAction_STAT, Ref: "r", Total: int64(len(data)), Expected: dgst.String()})
		wantCode(t, codes.OK, err)
		if r.GetOffset() != 0 {
			t.Errorf("offset %d", r.GetOffset())
		}
		r, err = ask(s, &contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Data: data[:5]})
		wantCode(t, codes.OK, err)
		if r.GetOffset() != 5 {
			t.Errorf("offset %d, want 5", r.GetOffset())
		}
		other := ok(a.content.Write(ctx))(t)
		_, err = ask(other, &contentapi.WriteContentRequest{Action: contentapi.WriteAction_STAT, Ref: "r"})
		wantCode(t, codes.Unavailable, err)
		err = nil
		s.CloseSend()
		for ; !errors.Is(err, io.EOF); _, err = s.Recv() {
			wantCode(t, codes.OK, err)
		}
		st, err := a.content.Status(ctx, &contentapi.StatusRequest{Ref: "r"})
		wantCode(t, codes.OK, err)
		if st.GetStatus().GetOffset() != 5 || st.GetStatus().GetTotal() != int64(len(data)) || st.GetStatus().GetRef() != "r" {
			t.Errorf("status %v", st)
		}
		list := ok(a.content.ListStatuses(ctx, &contentapi.ListStatusesRequest{}))(t)
		if len(list.Statuses) != 1 || list.Statuses[0].Ref != "r" {
			t.Errorf("statuses %v", list.Statuses)
		}
		s = ok(a.content.Write(ctx))(t)
		r, err = ask(s, &contentapi.WriteContentRequest{Action: contentapi.WriteAction_STAT, Ref: "r", Total: int64(len(data)), Expected: dgst.String()})
		wantCode(t, codes.OK, err)
		if r.GetOffset() != 5 {
			t.Errorf("resumed at %d, want 5", r.GetOffset())
		}
		r, err = ask(s, &contentapi.WriteContentRequest{Action: contentapi.WriteAction_COMMIT, Offset: 5, Data: data[5:], Labels: map[string]string{"containerd.io/gc.root": "yes", "l": "1"}})
		wantCode(t, codes.OK, err)
		if r.GetDigest() != dgst.String() {
			t.Errorf("committed %v", r)
		}
		info := ok(a.content.Info(ctx, &contentapi.InfoRequest{Digest: dgst.String()}))(t)
		wantLabels(t, info.Info.Labels, "containerd.io/gc.root=yes l=1")
		if got := a.read(t, ctx, dgst.String(), 4, 3); got != string(data[4:7]) {
			t.Errorf("read %q", got)
		}
		if got := a.read(t, ctx, dgst.String(), 0, 0); got != string(data) {
			t.Errorf("read %q", got)
		}
		_, err = a.write(ctx, "again", data, nil)
		wantCode(t, codes.AlreadyExists, err)
	}},
	{"a blob of another namespace is committed without a byte written", func(t *testing.T, a *api, ctx context.Context, ns string) {
		data := []byte(ns + " shares a blob")
		dgst := ok(a.write(ctx, "r", data, map[string]string{root: "x"}))(t)
		other := in(ns + "-other")
		s := ok(a.content.Write(other))(t)
		stat := &contentapi.WriteContentRequest{Action: contentapi.WriteAction_STAT, Ref: "r", Total: int64(len(data)), Expected: dgst.String()}
		wantCode(t, codes.OK, s.Send(stat))
		r, err := s.Recv()
		wantCode(t, codes.OK, err)
		if r.GetOffset() != int64(len(data)) {
			t.Errorf("offset %d, want %d", r.GetOffset(), len(data))
		}
		// containerd's client says where it is, though nothing follows.
		wantCode(t, codes.OK, s.Send(&contentapi.WriteContentRequest{
			Action: contentapi.WriteAction_COMMIT, Total: int64(len(data)), Offset: int64(len(data)), Expected: dgst.String(),
			Labels: map[string]string{root: "x"},
		}))
		_, err = s.Recv()
		wantCode(t, codes.OK, err)
		if got := a.read(t, other, dgst.String(), 0, 0); got != string(data) {
			t.Errorf("read %q", got)
		}
	}},
	{"a blob must be what was expected", func(t *testing.T, a *api, ctx context.Context, ns string) {
		commit := func(r *contentapi.WriteContentRequest) error {
			s, err := a.content.Write(ctx)
			if err != nil {
				return err
			}
			r.Action = contentapi.WriteAction_COMMIT
			s.Send(r)
			_, err = s.Recv()
			return err
		}
		data := []byte(ns + " wrong")
		wantCode(t, codes.FailedPrecondition, commit(&contentapi.WriteContentRequest{Ref: "a", Expected: digest.FromString("other").String(), Data: data}))
		wantCode(t, codes.FailedPrecondition, commit(&contentapi.WriteContentRequest{Ref: "b", Total: 1000, Data: data}))
		wantCode(t, codes.InvalidArgument, commit(&contentapi.WriteContentRequest{Data: data}))
		wantCode(t, codes.OutOfRange, commit(&contentapi.WriteContentRequest{Ref: "d", Offset: 10, Data: data}))
		if all, err := a.blobs(ctx); err != nil || len(all) > 0 {
			t.Errorf("blobs are %v, %v", all, err)
		}
	}},
	{"a read ends with the blob, also where more was asked for", func(t *testing.T, a *api, ctx context.Context, ns string) {
		dgst := ok(a.write(ctx, "r", []byte(ns+" is read"), map[string]string{root: "x"}))(t).String()
		if got := a.read(t, ctx, dgst, int64(len(ns)), 1000); got != " is read" {
			t.Errorf("read %q", got)
		}
	}},
	{"a commit of another size fails, and can be tried again", func(t *testing.T, a *api, ctx context.Context, ns string) {
		ask := func(r *contentapi.WriteContentRequest) error {
			s := ok(a.content.Write(ctx))(t)
			defer s.CloseSend()
			r.Ref = "r"
			if err := s.Send(r); err != nil && !errors.Is(err, io.EOF) { // else Recv has the reason
				return err
			}
			_, err := s.Recv()
			return err
		}
		data := []byte(ns + " has a size")
		size := int64(len(data))
		wantCode(t, codes.OK, ask(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Data: data}))
		commit := func(total int64) (err error) {
			eventually(t, "the ingest is let go", func() error {
				err = ask(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_COMMIT, Offset: size, Total: total})
				if status.Code(err) == codes.Unavailable {
					return err
				}
				return nil
			})
			return err
		}
		wantCode(t, codes.FailedPrecondition, commit(size-1))
		wantCode(t, codes.OK, commit(size))
	}},
	{"an ingest is aborted once", func(t *testing.T, a *api, ctx context.Context, _ string) {
		s := ok(a.content.Write(ctx))(t)
		wantCode(t, codes.OK, s.Send(&contentapi.WriteContentRequest{Action: contentapi.WriteAction_WRITE, Ref: "r", Data: []byte("x")}))
		_, err := s.Recv()
		wantCode(t, codes.OK, err)
		s.CloseSend()
		s.Recv()
		_, err = a.content.Abort(ctx, &contentapi.AbortRequest{Ref: "r"})
		wantCode(t, codes.OK, err)
		_, err = a.content.Status(ctx, &contentapi.StatusRequest{Ref: "r"})
		wantCode(t, codes.NotFound, err)
		_, err = a.content.Abort(ctx, &contentapi.AbortRequest{Ref: "r"})
		wantCode(t, codes.NotFound, err)
	}},
	{"blobs are the namespace's, and found by filters", func(t *testing.T, a *api, ctx context.Context, ns string) {
		one := ok(a.write(ctx, "1", []byte(ns+"1"), map[string]string{"k": "1", root: "x"}))(t)
		ok(a.write(ctx, "2", []byte(ns+"2"), map[string]string{root: "x"}))(t)
		for filter, want := range map[string]int{"labels.k==1": 1, "digest==" + one.String(): 1, "labels.k": 1, "": 2, "labels.nosuch": 0} {
			all, err := a.blobs(ctx, filter)
			if err != nil || len(all) != want {
				t.Errorf("%q finds %v, %v", filter, all, err)
			}
		}
		_, err := a.content.Info(in(ns+"-other"), &contentapi.InfoRequest{Digest: one.String()})
		wantCode(t, codes.NotFound, err)
		u, err := a.content.Update(ctx, &contentapi.UpdateRequest{
			Info: &contentapi.Info{Digest: one.String(), Labels: map[string]string{"k": "", "j": "2"}}, UpdateMask: mask("labels.k", "labels.j"),
		})
		wantCode(t, codes.OK, err)
		info := ok(a.content.Info(ctx, &contentapi.InfoRequest{Digest: one.String()}))(t)
		wantLabels(t, info.Info.Labels, root+"=x j=2")
		_ = u
		_, err = a.content.Update(ctx, &contentapi.UpdateRequest{Info: &contentapi.Info{Digest: one.String()}, UpdateMask: mask("size")})
		wantCode(t, codes.InvalidArgument, err)
		_, err = a.content.Update(ctx, &contentapi.UpdateRequest{Info: &contentapi.Info{Digest: digest.FromString("none").String()}})
		wantCode(t, codes.NotFound, err)
		_, err = a.content.Info(ctx, &contentapi.InfoRequest{Digest: "sha256:zz"})
		wantCode(t, codes.InvalidArgument, err)
		_, err = a.content.Delete(ctx, &contentapi.DeleteContentRequest{Digest: one.String()})
		wantCode(t, codes.OK, err)
		_, err = a.content.Delete(ctx, &contentapi.DeleteContentRequest{Digest: one.String()})
		wantCode(t, codes.NotFound, err)
		s := ok(a.content.Read(ctx, &contentapi.ReadContentRequest{Digest: one.String()}))(t)
		_, err = s.Recv()
		wantCode(t, codes.NotFound, err)
	}},
	{"a read beyond the end is out of range", func(t *testing.T, a *api, ctx context.Context, ns string) {
		dgst := ok(a.write(ctx, "1", []byte(ns), map[string]string{root: "x"}))(t)
		s := ok(a.content.Read(ctx, &contentapi.ReadContentRequest{Digest: dgst.String(), Offset: 1000}))(t)
		_, err := s.Recv()
		wantCode(t, codes.OutOfRange, err)
	}},

	{"snapshots are prepared, committed, viewed and removed", func(t *testing.T, a *api, ctx context.Context, _ string) {
		prepare := func(key, parent string) error {
			_, err := a.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: key, Parent: parent, Labels: map[string]string{root: "x"}})
			return err
		}
		remove := func(key string) error {
			_, err := a.snapshots.Remove(ctx, &snapshotsapi.RemoveSnapshotRequest{Snapshotter: "overlayfs", Key: key})
			return err
		}
		wantCode(t, codes.OK, prepare("a", ""))
		wantCode(t, codes.AlreadyExists, prepare("a", ""))
		wantCode(t, codes.NotFound, prepare("b", "none"))
		_, err := a.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{
			Snapshotter: "overlayfs", Name: "A", Key: "a", Labels: map[string]string{"k": "1", root: "x"},
		})
		wantCode(t, codes.OK, err)
		wantCode(t, codes.OK, prepare("b", "A"))
		_, err = a.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: "A", Key: "b"})
		wantCode(t, codes.AlreadyExists, err)
		_, err = a.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: "C", Key: "none"})
		wantCode(t, codes.NotFound, err)
		_, err = a.snapshots.View(ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: "overlayfs", Key: "v", Parent: "A", Labels: map[string]string{root: "x"}})
		wantCode(t, codes.OK, err)
		st := ok(a.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "overlayfs", Key: "A"}))(t)
		if st.Info.Kind != snapshotsapi.Kind_COMMITTED || st.Info.Parent != "" {
			t.Errorf("stat %v", st.Info)
		}
		wantLabels(t, st.Info.Labels, root+"=x k=1")
		m := ok(a.snapshots.Mounts(ctx, &snapshotsapi.MountsRequest{Snapshotter: "overlayfs", Key: "b"}))(t)
		if len(m.Mounts) != 1 || m.Mounts[0].Type != "overlay" {
			t.Errorf("mounts %v", m.Mounts)
		}
		for filter, want := range map[string]string{"kind==committed": "A", "kind==view": "v", "parent==A": "b v", "labels.k==1": "A", "name~=^[vb]$": "b v"} {
			keys, err := a.snapshotKeys(ctx, filter)
			if got := strings.Join(keys, " "); err != nil || got != want {
				t.Errorf("%q finds %q, %v, want %q", filter, got, err, want)
			}
		}
		u, err := a.snapshots.Update(ctx, &snapshotsapi.UpdateSnapshotRequest{
			Snapshotter: "overlayfs", Info: &snapshotsapi.Info{Name: "A", Labels: map[string]string{"k": "2"}}, UpdateMask: mask("labels.k"),
		})
		wantCode(t, codes.OK, err)
		wantLabels(t, u.GetInfo().GetLabels(), root+"=x k=2")
		_, err = a.snapshots.Update(ctx, &snapshotsapi.UpdateSnapshotRequest{
			Snapshotter: "overlayfs", Info: &snapshotsapi.Info{Name: "A"}, UpdateMask: mask("parent"),
		})
		wantCode(t, codes.InvalidArgument, err)
		wantCode(t, codes.FailedPrecondition, remove("A"))
		wantCode(t, codes.OK, remove("b"))
		wantCode(t, codes.OK, remove("v"))
		wantCode(t, codes.OK, remove("A"))
		wantCode(t, codes.NotFound, remove("A"))
		_, err = a.snapshots.Usage(ctx, &snapshotsapi.UsageRequest{Snapshotter: "overlayfs", Key: "A"})
		wantCode(t, codes.NotFound, err)
	}},
	{"a snapshot whose target is there is not prepared", func(t *testing.T, a *api, ctx context.Context, _ string) {
		ok(a.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "a", Labels: map[string]string{root: "x"}}))(t)
		ok(a.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: "T", Key: "a", Labels: map[string]string{root: "x"}}))(t)
		_, err := a.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{
			Snapshotter: "overlayfs", Key: "b", Labels: map[string]string{"containerd.io/snapshot.ref": "T"},
		})
		wantCode(t, codes.AlreadyExists, err)
	}},
	{"a snapshotter that is not there", func(t *testing.T, a *api, ctx context.Context, _ string) {
		_, err := a.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "nosuch", Key: "A"})
		wantCode(t, codes.InvalidArgument, err)
		_, err = a.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Key: "A"})
		wantCode(t, codes.InvalidArgument, err)
	}},

	{"leases come, hold and go", func(t *testing.T, a *api, ctx context.Context, _ string) {
		l := ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "l", Labels: map[string]string{"a": "1"}}))(t)
		if l.Lease.ID != "l" {
			t.Errorf("lease %v", l.Lease)
		}
		_, err := a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "l"})
		wantCode(t, codes.AlreadyExists, err)
		auto := ok(a.leases.Create(ctx, &leasesapi.CreateRequest{}))(t)
		if auto.Lease.ID == "" {
			t.Error("no ID was made")
		}
		list := ok(a.leases.List(ctx, &leasesapi.ListRequest{Filters: []string{"labels.a==1"}}))(t)
		if len(list.Leases) != 1 || list.Leases[0].ID != "l" {
			t.Errorf("list gives %v", list.Leases)
		}
		dgst := digest.FromString("x").String()
		add := func(id, kind, name string) error {
			_, err := a.leases.AddResource(ctx, &leasesapi.AddResourceRequest{ID: id, Resource: &leasesapi.Resource{ID: name, Type: kind}})
			return err
		}
		wantCode(t, codes.OK, add("l", "content", dgst))
		wantCode(t, codes.OK, add("l", "snapshots/overlayfs", "s"))
		wantCode(t, codes.OK, add("l", "ingests", "i"))
		wantCode(t, codes.NotFound, add("none", "content", dgst))
		wantCode(t, codes.InvalidArgument, add("l", "content", "x"))
		wantCode(t, codes.Unimplemented, add("l", "nosuch", "x"))
		res := ok(a.leases.ListResources(ctx, &leasesapi.ListResourcesRequest{ID: "l"}))(t)
		var got []string
		for _, r := range res.Resources {
			got = append(got, r.Type+" "+r.ID)
		}
		slices.Sort(got)
		if want := []string{"content " + dgst, "ingests i", "snapshots/overlayfs s"}; !reflect.DeepEqual(got, want) {
			t.Errorf("resources are %v, want %v", got, want)
		}
		_, err = a.leases.DeleteResource(ctx, &leasesapi.DeleteResourceRequest{ID: "l", Resource: &leasesapi.Resource{ID: "i", Type: "ingests"}})
		wantCode(t, codes.OK, err)
		_, err = a.leases.ListResources(ctx, &leasesapi.ListResourcesRequest{ID: "none"})
		wantCode(t, codes.NotFound, err)
		_, err = a.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "l", Sync: true})
		wantCode(t, codes.OK, err)
		_, err = a.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "l"})
		wantCode(t, codes.NotFound, err)
	}},
	{"a lease that is not there holds nothing", func(t *testing.T, a *api, _ context.Context, ns string) {
		ctx := in(ns, "containerd-lease", "none")
		_, err := a.write(ctx, "r", []byte(ns), nil)
		wantCode(t, codes.NotFound, err)
		_, err = a.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "a"})
		wantCode(t, codes.NotFound, err)
	}},
	{"what only a lease holds goes with it", func(t *testing.T, a *api, ctx context.Context, ns string) {
		ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "l"}))(t)
		held := in(ns, "containerd-lease", "l")
		dgst := ok(a.write(held, "r", []byte(ns), nil))(t)
		ok(a.snapshots.Prepare(held, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: "s"}))(t)
		ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "collect"}))(t)
		ok(a.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "collect", Sync: true}))(t)
		_, err := a.content.Info(ctx, &contentapi.InfoRequest{Digest: dgst.String()})
		wantCode(t, codes.OK, err)
		_, err = a.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "overlayfs", Key: "s"})
		wantCode(t, codes.OK, err)
		ok(a.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "l", Sync: true}))(t)
		_, err = a.content.Info(ctx, &contentapi.InfoRequest{Digest: dgst.String()})
		wantCode(t, codes.NotFound, err)
		_, err = a.snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: "overlayfs", Key: "s"})
		wantCode(t, codes.NotFound, err)
	}},
	{"a lease that expired holds nothing", func(t *testing.T, a *api, ctx context.Context, ns string) {
		end := time.Now().Add(2 * time.Second).Truncate(time.Second)
		ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "l", Labels: map[string]string{"containerd.io/gc.expire": end.UTC().Format(time.RFC3339)}}))(t)
		dgst := ok(a.write(in(ns, "containerd-lease", "l"), "r", []byte(ns), nil))(t)
		time.Sleep(time.Until(end) + 10*time.Millisecond)
		ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "collect"}))(t)
		ok(a.leases.Delete(ctx, &leasesapi.DeleteRequest{ID: "collect", Sync: true}))(t)
		_, err := a.content.Info(ctx, &contentapi.InfoRequest{Digest: dgst.String()})
		wantCode(t, codes.NotFound, err)
	}},

	{"events reach those whose filters match, in order", func(t *testing.T, a *api, ctx context.Context, ns string) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		recv := a.listen(t, ctx, "/containers/probe", fmt.Sprintf("namespace==%s,topic~=|^/containers/|", ns))
		for _, id := range []string{"c1", "c2"} {
			ok(a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: container(id, nil)}))(t)
		}
		ok(a.images.Create(ctx, &imagesapi.CreateImageRequest{Image: &imagesapi.Image{Name: "i", Target: target("x")}}))(t)
		ok(a.containers.Delete(ctx, &containersapi.DeleteContainerRequest{ID: "c1"}))(t)
		for _, want := range []string{"/containers/create c1", "/containers/create c2", "/containers/delete c1"} {
			e := recv()
			v := ok(typeurl.UnmarshalAny(e.Event))(t)
			id := v.(interface{ GetID() string }).GetID()
			if got := e.Topic + " " + id; got != want || e.Namespace != ns {
				t.Errorf("got %q in %s, want %q", got, e.Namespace, want)
			}
		}
	}},
	{"events are published and forwarded", func(t *testing.T, a *api, ctx context.Context, ns string) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		recv := a.listen(t, ctx, "/tasks/exit", `topic=="/tasks/exit",namespace==`+ns)
		body := ok(typeurl.MarshalAnyToProto(&events.TaskExit{ContainerID: "c", ID: "e", Pid: 7, ExitStatus: 3}))(t)
		_, err := a.events.Publish(ctx, &eventsapi.PublishRequest{Topic: "/tasks/exit", Event: body})
		wantCode(t, codes.OK, err)
		e := recv()
		if e.Topic != "/tasks/exit" || e.Namespace != ns || e.Timestamp == nil {
			t.Errorf("got %v", e)
		}
		_, err = a.events.Forward(ctx, &eventsapi.ForwardRequest{Envelope: e})
		wantCode(t, codes.OK, err)
		if again := recv(); !again.Timestamp.AsTime().Equal(e.Timestamp.AsTime()) {
			t.Errorf("forwarded %v, want the time %v", again, e.Timestamp)
		}
		_, err = a.events.Publish(ctx, &eventsapi.PublishRequest{Topic: "no-slash", Event: body})
		wantCode(t, codes.InvalidArgument, err)
		_, err = a.events.Forward(ctx, &eventsapi.ForwardRequest{Envelope: &types.Envelope{Topic: "/x", Event: body}})
		wantCode(t, codes.InvalidArgument, err)
	}},

	{"a task that is not there is not found", func(t *testing.T, a *api, ctx context.Context, _ string) {
		ok(a.containers.Create(ctx, &containersapi.CreateContainerRequest{Container: container("c", nil)}))(t)
		for name, call := range map[string]func(id string) error{
			"Get": func(id string) error { _, err := a.tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: id}); return err },
			"Start": func(id string) error {
				_, err := a.tasks.Start(ctx, &tasksapi.StartRequest{ContainerID: id})
				return err
			},
			"Kill": func(id string) error {
				_, err := a.tasks.Kill(ctx, &tasksapi.KillRequest{ContainerID: id, Signal: 9})
				return err
			},
			"Delete": func(id string) error {
				_, err := a.tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
				return err
			},
			"Wait": func(id string) error { _, err := a.tasks.Wait(ctx, &tasksapi.WaitRequest{ContainerID: id}); return err },
			"Pause": func(id string) error {
				_, err := a.tasks.Pause(ctx, &tasksapi.PauseTaskRequest{ContainerID: id})
				return err
			},
			"ListPids": func(id string) error {
				_, err := a.tasks.ListPids(ctx, &tasksapi.ListPidsRequest{ContainerID: id})
				return err
			},
			"Exec": func(id string) error {
				_, err := a.tasks.Exec(ctx, &tasksapi.ExecProcessRequest{ContainerID: id, ExecID: "e"})
				return err
			},
		} {
			for _, id := range []string{"c", "none"} {
				if wantCode(t, codes.NotFound, call(id)); t.Failed() {
					t.Fatal(name, id)
				}
			}
		}
		_, err := a.tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: "none"})
		wantCode(t, codes.NotFound, err)
		r := ok(a.tasks.List(ctx, &tasksapi.ListTasksRequest{}))(t)
		if len(r.Tasks) > 0 {
			t.Errorf("tasks are %v", r.Tasks)
		}
	}},
	{"a diff of a blob that is not there is not applied", func(t *testing.T, a *api, ctx context.Context, _ string) {
		_, err := a.diff.Apply(ctx, &diffapi.ApplyRequest{Diff: &types.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar", Digest: digest.FromString("none").String(), Size: 3}})
		wantCode(t, codes.NotFound, err)
	}},
	{"a diff is a layer that makes the same tree", func(t *testing.T, a *api, ctx context.Context, ns string) {
		ok(a.leases.Create(ctx, &leasesapi.CreateRequest{ID: "l"}))(t)
		ctx = in(ns, "containerd-lease", "l")
		prepare := func(key, parent string) []*types.Mount {
			return ok(a.snapshots.Prepare(ctx, &snapshotsapi.PrepareSnapshotRequest{Snapshotter: "overlayfs", Key: key, Parent: parent}))(t).Mounts
		}
		upper := prepare("base", "")
		for name, text := range map[string]string{"kept": "1", "gone": "2", "changed": "3"} {
			writeFile(t, upper, name, text)
		}
		ok(a.snapshots.Commit(ctx, &snapshotsapi.CommitSnapshotRequest{Snapshotter: "overlayfs", Name: "B", Key: "base"}))(t)
		left := ok(a.snapshots.View(ctx, &snapshotsapi.ViewSnapshotRequest{Snapshotter: "overlayfs", Key: "view", Parent: "B"}))(t).Mounts
		right := prepare("top", "B")
		within(t, right, func(dir string) {
			for name, text := range map[string]string{"changed": "4", "new": "5"} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Error(err)
				}
			}
			if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
				t.Error(err)
			}
		})
		for _, mediaType := range []string{"", "application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip"} {
			r := ok(a.diff.Diff(ctx, &diffapi.DiffRequest{Left: left, Right: right, MediaType: mediaType, Labels: map[string]string{"k": "v"}}))(t).Diff
			info := ok(a.content.Info(ctx, &contentapi.InfoRequest{Digest: r.Digest}))(t).Info
			tar := info.Labels["containerd.io/uncompressed"]
			if !strings.HasSuffix(r.MediaType, "gzip") {
				tar = r.Digest
			}
			if info.Size != r.Size || info.Labels["k"] != "v" {
				t.Errorf("diff %v has %v", r, info)
			}
			again := prepare("again"+mediaType, "B")
			applied := ok(a.diff.Apply(ctx, &diffapi.ApplyRequest{Diff: r, Mounts: again}))(t).Applied
			if applied.Digest != tar {
				t.Errorf("applied %v, want %s", applied, tar)
			}
			within(t, again, func(dir string) {
				var tree []string
				for _, name := range globbed(t, filepath.Join(dir, "*")) {
					tree = append(tree, filepath.Base(name)+string(ok(os.ReadFile(name))(t)))
				}
				if got := strings.Join(tree, " "); got != "changed4 kept1 new5" {
					t.Errorf("the tree is %s", got)
				}
			})
		}
		_, err := a.diff.Diff(ctx, &diffapi.DiffRequest{Left: left, Right: right, MediaType: "text/plain"})
		wantCode(t, codes.Unimplemented, err)
	}},
	{"plugins are found by filters", func(t *testing.T, a *api, ctx context.Context, _ string) {
		r := ok(a.introspection.Plugins(ctx, &introspectionapi.PluginsRequest{Filters: []string{"type==io.containerd.snapshotter.v1,id==overlayfs"}}))(t)
		if len(r.Plugins) != 1 || r.Plugins[0].ID != "overlayfs" {
			t.Errorf("plugins are %v", r.Plugins)
		}
		s := ok(a.introspection.Server(ctx, &emptypb.Empty{}))(t)
		if len(s.UUID) != 36 {
			t.Errorf("UUID %q", s.UUID)
		}
		v := ok(a.version.Version(ctx, &emptypb.Empty{}))(t)
		if v.Version == "" {
			t.Error("no version")
		}
	}},
}

func TestAnswersAreContainerds(t *testing.T) {
	for _, who := range []struct {
		name  string
		start func(daemon, testing.TB) *api
	}{
		{"lifecycle", func(d daemon, t testing.TB) *api { d.startOurs(t); return d.dial(t) }},
		{"lifecycle within the process", daemon.within},
		{"containerd", func(d daemon, t testing.TB) *api { d.startTheirs(t); return d.dial(t) }},
	} {
		t.Run(who.name, func(t *testing.T) {
			a := who.start(newDaemon(t), t)
			for i, tt := range answers {
				t.Run(tt.name, func(t *testing.T) {
					ns := fmt.Sprintf("ns%d", i)
					tt.run(t, a, in(ns), ns)
				})
			}
		})
	}
}

// root is the label that keeps a blob or a snapshot from the garbage collector.
const root = "containerd.io/gc.root"

var (
	runtime = &containersapi.Container_Runtime{Name: "io.containerd.runc.v2"}
	spec    = &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: []byte("{}")}
)

func container(id string, labels map[string]string) *containersapi.Container {
	return &containersapi.Container{ID: id, Image: "img", Runtime: runtime, Spec: spec, Labels: labels}
}

func target(s string) *types.Descriptor {
	return &types.Descriptor{MediaType: "application/vnd.oci.image.manifest.v1+json", Digest: digest.FromString(s).String(), Size: int64(len(s))}
}

func mask(paths ...string) *fieldmaskpb.FieldMask { return &fieldmaskpb.FieldMask{Paths: paths} }

func (a *api) namespaceLabels(t *testing.T, ns string) map[string]string {
	t.Helper()
	return ok(a.namespaces.Get(context.Background(), &namespacesapi.GetNamespaceRequest{Name: ns}))(t).Namespace.Labels
}

// read reads a piece of a blob; size 0 is all.
func (a *api) read(t testing.TB, ctx context.Context, dgst string, offset, size int64) string {
	t.Helper()
	s := ok(a.content.Read(ctx, &contentapi.ReadContentRequest{Digest: dgst, Offset: offset, Size: size}))(t)
	var out strings.Builder
	for {
		r, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return out.String()
		} else if err != nil {
			t.Fatal(err)
		}
		out.Write(r.Data)
	}
}

func wantLabels(t *testing.T, labels map[string]string, want string) {
	t.Helper()
	var all []string
	for k, v := range labels {
		all = append(all, k+"="+v)
	}
	slices.Sort(all)
	if got := strings.Join(all, " "); got != want {
		t.Errorf("labels are %q, want %q", got, want)
	}
}

// within calls fn with the directory of mounts that a daemon gave.
func within(t *testing.T, mounts []*types.Mount, fn func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	for _, m := range mounts {
		if err := (mount.Mount{Type: m.Type, Source: m.Source, Options: m.Options}).Mount(dir); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	fn(dir)
}

func writeFile(t *testing.T, mounts []*types.Mount, name, text string) {
	t.Helper()
	within(t, mounts, func(dir string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	})
}
