// Package contenttest holds every implementation of content.Store to the same
// behaviour.
package contenttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/store/content"
)

// Run runs the suite. make gives a store that is empty, and the context for it;
// it must keep labels.
func Run(t *testing.T, make func(t *testing.T) (context.Context, content.Store)) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, ctx context.Context, s content.Store)
	}{
		{"a committed blob can be read", readsBack},
		{"an empty blob is a blob", emptyBlob},
		{"a writer resumes where the last one stopped", resumes},
		{"a ref has one writer at a time", oneWriter},
		{"a wrong size or digest is not committed", refusesWrong},
		{"a blob that is there is not written again", alreadyThere},
		{"truncate begins again", truncates},
		{"an aborted ingest is gone", aborts},
		{"labels are set whole or one by one", labels},
		{"walk sees what the filters choose", walks},
		{"what is not there is NotFound", notThere},
		{"a deleted blob is gone", deletes},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, s := make(t)
			tt.run(t, ctx, s)
		})
	}
}

func describe(data []byte) ocispec.Descriptor {
	return ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
}

// label keeps a blob from a garbage collector for as long as a test runs.
var label = map[string]string{"containerd.io/gc.root": "contenttest"}

// put commits data and gives its descriptor.
func put(t *testing.T, ctx context.Context, s content.Store, data []byte) ocispec.Descriptor {
	t.Helper()
	desc := describe(data)
	if err := content.WriteBlob(ctx, s, "put-"+desc.Digest.Encoded(), data, desc, label); err != nil {
		t.Fatal(err)
	}
	return desc
}

func write(t *testing.T, w io.Writer, data []byte) {
	t.Helper()
	if n, err := w.Write(data); err != nil || n != len(data) {
		t.Fatalf("write: %d of %d bytes, %v", n, len(data), err)
	}
}

func open(t *testing.T, ctx context.Context, s content.Store, ref string, desc ocispec.Descriptor) content.Writer {
	t.Helper()
	w, err := s.Writer(ctx, ref, desc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func want(t *testing.T, what string, err error, is func(error) bool) {
	t.Helper()
	if !is(err) {
		t.Errorf("%s: unexpected error %v", what, err)
	}
}

func readsBack(t *testing.T, ctx context.Context, s content.Store) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB: several messages on a wire
	desc := put(t, ctx, s, data)
	info, err := s.Info(ctx, desc.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != desc.Size || info.Digest != desc.Digest || info.CreatedAt.IsZero() || info.UpdatedAt.IsZero() {
		t.Errorf("info is %+v", info)
	}
	ra, err := s.ReaderAt(ctx, desc)
	if err != nil {
		t.Fatal(err)
	}
	defer ra.Close()
	if ra.Size() != desc.Size {
		t.Errorf("size is %d, want %d", ra.Size(), desc.Size)
	}
	got, err := io.ReadAll(io.NewSectionReader(ra, 0, ra.Size()))
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v", len(got), err)
	}
	p := make([]byte, 10)
	if n, err := ra.ReadAt(p, desc.Size-4); n != 4 || !errors.Is(err, io.EOF) || string(p[:n]) != "cdef" {
		t.Errorf("read at the end: %q, %v", p[:n], err)
	}
	if n, err := ra.ReadAt(p, desc.Size+1); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("read beyond the end: %d, %v", n, err)
	}
	if n, err := ra.ReadAt(p[:0], 3); n != 0 || err != nil {
		t.Errorf("read of nothing: %d, %v", n, err)
	}
}

func emptyBlob(t *testing.T, ctx context.Context, s content.Store) {
	desc := put(t, ctx, s, nil)
	if data, err := content.ReadBlob(ctx, s, desc); err != nil || len(data) != 0 {
		t.Errorf("read %q, %v", data, err)
	}
}

func resumes(t *testing.T, ctx context.Context, s content.Store) {
	data := []byte("first half, second half")
	desc := describe(data)
	w := open(t, ctx, s, "resume", desc)
	write(t, w, data[:11])
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	st, err := s.Status(ctx, "resume")
	if err != nil {
		t.Fatal(err)
	}
	if st.Ref != "resume" || st.Offset != 11 || st.Total != desc.Size || st.StartedAt.IsZero() {
		t.Errorf("status is %+v", st)
	}
	all, err := s.ListStatuses(ctx)
	if err != nil || len(all) != 1 || all[0].Ref != "resume" {
		t.Errorf("statuses are %+v, %v", all, err)
	}

	w = open(t, ctx, s, "resume", desc)
	if st, err = w.Status(); err != nil || st.Offset != 11 {
		t.Fatalf("resumes at %d, %v", st.Offset, err)
	}
	if r, ok := w.(io.ReaderAt); ok {
		p := make([]byte, 5)
		if _, err := r.ReadAt(p, 6); err != nil || string(p) != "half," {
			t.Errorf("received bytes read %q, %v", p, err)
		}
	}
	write(t, w, data[11:])
	if w.Digest() != desc.Digest {
		t.Errorf("digest is %s, want %s", w.Digest(), desc.Digest)
	}
	if err := w.Commit(ctx, desc.Size, desc.Digest, label); err != nil {
		t.Fatal(err)
	}
	if got, err := content.ReadBlob(ctx, s, desc); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := s.Status(ctx, "resume"); !errdefs.IsNotFound(err) {
		t.Errorf("status of a committed ingest: %v", err)
	}
}

func oneWriter(t *testing.T, ctx context.Context, s content.Store) {
	w := open(t, ctx, s, "one", ocispec.Descriptor{})
	write(t, w, []byte("x"))
	if w2, err := s.Writer(ctx, "one", ocispec.Descriptor{}); err == nil {
		w2.Close()
		t.Error("a second writer was opened")
	} else if !errdefs.IsUnavailable(err) {
		t.Errorf("second writer: %v", err)
	}
	open(t, ctx, s, "two", ocispec.Descriptor{})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, ctx, s, "one", ocispec.Descriptor{})
}

func refusesWrong(t *testing.T, ctx context.Context, s content.Store) {
	data := []byte("the truth")
	desc := describe(data)
	for _, tt := range []struct {
		name string
		size int64
		dgst digest.Digest
	}{
		{"a wrong size", desc.Size + 1, desc.Digest},
		{"a wrong digest", desc.Size, digest.FromString("a lie")},
	} {
		w := open(t, ctx, s, tt.name, ocispec.Descriptor{})
		write(t, w, data)
		want(t, tt.name, w.Commit(ctx, tt.size, tt.dgst, label), errdefs.IsFailedPrecondition)
		w.Close()
	}
	if _, err := s.Info(ctx, desc.Digest); !errdefs.IsNotFound(err) {
		t.Errorf("it was committed: %v", err)
	}
}

func alreadyThere(t *testing.T, ctx context.Context, s content.Store) {
	data := []byte("written twice")
	w := open(t, ctx, s, "unnamed", ocispec.Descriptor{})
	write(t, w, data)
	desc := put(t, ctx, s, data)
	want(t, "commit", w.Commit(ctx, desc.Size, desc.Digest, nil), errdefs.IsAlreadyExists)
	_, err := s.Writer(ctx, "again", desc)
	want(t, "writer", err, errdefs.IsAlreadyExists)
}

func truncates(t *testing.T, ctx context.Context, s content.Store) {
	data := []byte("second thoughts")
	desc := describe(data)
	w := open(t, ctx, s, "truncate", ocispec.Descriptor{})
	write(t, w, []byte("first thoughts, which were longer"))
	if err := w.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if st, err := w.Status(); err != nil || st.Offset != 0 {
		t.Errorf("offset is %d, %v", st.Offset, err)
	}
	write(t, w, data)
	if err := w.Commit(ctx, desc.Size, desc.Digest, label); err != nil {
		t.Fatal(err)
	}
}

func aborts(t *testing.T, ctx context.Context, s content.Store) {
	w := open(t, ctx, s, "abort", ocispec.Descriptor{})
	write(t, w, []byte("never mind"))
	w.Close()
	if err := s.Abort(ctx, "abort"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Status(ctx, "abort")
	want(t, "status", err, errdefs.IsNotFound)
	w = open(t, ctx, s, "abort", ocispec.Descriptor{})
	if st, err := w.Status(); err != nil || st.Offset != 0 {
		t.Errorf("a new ingest begins at %d, %v", st.Offset, err)
	}
}

func labels(t *testing.T, ctx context.Context, s content.Store) {
	desc := put(t, ctx, s, []byte("labelled"))
	for _, tt := range []struct {
		name   string
		given  map[string]string
		fields []string
		want   map[string]string
	}{
		{"without fields all are replaced", map[string]string{"a": "1", "b": "2"}, nil, map[string]string{"a": "1", "b": "2"}},
		{"a field changes one", map[string]string{"a": "3", "c": "ignored"}, []string{"labels.a"}, map[string]string{"a": "3", "b": "2"}},
		{"a field with dots in it", map[string]string{"io.x/y.z": "4"}, []string{"labels.io.x/y.z"}, map[string]string{"a": "3", "b": "2", "io.x/y.z": "4"}},
		{"an empty value removes", nil, []string{"labels.b", "labels.io.x/y.z"}, map[string]string{"a": "3"}},
		{"the field labels replaces all", label, []string{"labels"}, label},
	} {
		info, err := s.Update(ctx, content.Info{Digest: desc.Digest, Labels: tt.given}, tt.fields...)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		again, err := s.Info(ctx, desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if w := fmt.Sprint(tt.want); fmt.Sprint(info.Labels) != w || fmt.Sprint(again.Labels) != w {
			t.Errorf("%s: %v, then %v, want %v", tt.name, info.Labels, again.Labels, w)
		}
	}
	_, err := s.Update(ctx, content.Info{Digest: desc.Digest}, "size")
	want(t, "update of the size", err, errdefs.IsInvalidArgument)
}

func walks(t *testing.T, ctx context.Context, s content.Store) {
	a, b := put(t, ctx, s, []byte("a")), put(t, ctx, s, []byte("b"))
	seen := func(filters ...string) map[digest.Digest]bool {
		m := map[digest.Digest]bool{}
		if err := s.Walk(ctx, func(i content.Info) error { m[i.Digest] = true; return nil }, filters...); err != nil {
			t.Fatal(err)
		}
		return m
	}
	if m := seen(); len(m) != 2 || !m[a.Digest] || !m[b.Digest] {
		t.Errorf("walk saw %v", m)
	}
	if m := seen("digest==" + a.Digest.String()); len(m) != 1 || !m[a.Digest] {
		t.Errorf("filtered walk saw %v", m)
	}
	stop := errors.New("stop")
	if err := s.Walk(ctx, func(content.Info) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("walk gave %v, want the error of its function", err)
	}
}

func notThere(t *testing.T, ctx context.Context, s content.Store) {
	dgst := digest.FromString("nowhere")
	_, err := s.Info(ctx, dgst)
	want(t, "info", err, errdefs.IsNotFound)
	_, err = s.Update(ctx, content.Info{Digest: dgst, Labels: label})
	want(t, "update", err, errdefs.IsNotFound)
	_, err = s.ReaderAt(ctx, ocispec.Descriptor{Digest: dgst})
	want(t, "reader", err, errdefs.IsNotFound)
	want(t, "delete", s.Delete(ctx, dgst), errdefs.IsNotFound)
	_, err = s.Status(ctx, "nowhere")
	want(t, "status", err, errdefs.IsNotFound)
	want(t, "abort", s.Abort(ctx, "nowhere"), errdefs.IsNotFound)
	_, err = s.Writer(ctx, "", ocispec.Descriptor{})
	want(t, "writer without ref", err, errdefs.IsInvalidArgument)
}

func deletes(t *testing.T, ctx context.Context, s content.Store) {
	desc := put(t, ctx, s, []byte("short-lived"))
	if err := s.Delete(ctx, desc.Digest); err != nil {
		t.Fatal(err)
	}
	_, err := s.Info(ctx, desc.Digest)
	want(t, "info", err, errdefs.IsNotFound)
	put(t, ctx, s, []byte("short-lived"))
}
