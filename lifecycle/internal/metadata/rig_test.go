package metadata_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/lifecycle/internal/exchange"
	"github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/content/local"
	"github.com/gantryd/gantry/store/snapshot"
	"github.com/gantryd/gantry/store/snapshot/disk"
)

// stores is a database with the stores below it, in a directory.
type stores struct {
	*metadata.DB
	root    string
	content *local.Store
	overlay *disk.Snapshotter
}

// open opens what is in root, with containerd's names.
func open(t testing.TB, root string) *stores { return openAs(t, root, "overlayfs") }

// openAs is open with another name for the snapshotter.
func openAs(t testing.TB, root, snapshotter string) *stores {
	t.Helper()
	s := &stores{root: root}
	var err error
	if s.content, err = local.New(filepath.Join(root, "io.containerd.content.v1.content")); err != nil {
		t.Fatal(err)
	}
	if s.overlay, err = disk.Overlay(filepath.Join(root, "io.containerd.snapshotter.v1.overlayfs")); err != nil {
		t.Fatal(err)
	}
	s.DB, err = metadata.Open(filepath.Join(root, "io.containerd.metadata.v1.bolt/meta.db"), s.content,
		map[string]snapshot.Snapshotter{snapshotter: s.overlay}, &exchange.Exchange{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close(t) })
	return s
}

// close closes everything; it may be called again.
func (s *stores) close(t testing.TB) {
	t.Helper()
	if s.DB == nil {
		return
	}
	if err := s.DB.Close(); err != nil {
		t.Error(err)
	}
	if err := s.overlay.Close(); err != nil {
		t.Error(err)
	}
	s.DB = nil
}

// write writes a blob.
func write(ctx context.Context, c metadata.Content, text string, labels map[string]string) (digest.Digest, error) {
	dgst := digest.FromString(text)
	w, err := c.Writer(ctx, "ref-"+text, ocispec.Descriptor{Digest: dgst, Size: int64(len(text))})
	if err != nil {
		return dgst, err
	}
	defer w.Close()
	if st, err := w.Status(); err != nil {
		return dgst, err
	} else if st.Offset == 0 {
		if _, err := w.Write([]byte(text)); err != nil {
			return dgst, err
		}
	}
	return dgst, w.Commit(ctx, int64(len(text)), dgst, labels)
}

// blobs lists the files of the content store.
func (s *stores) blobs(t testing.TB) (all []string) {
	t.Helper()
	err := s.content.Walk(t.Context(), func(i content.Info) error {
		all = append(all, i.Digest.String())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return all
}

// snapshotDirs counts the directories of the snapshotter.
func (s *stores) snapshotDirs(t testing.TB) int {
	t.Helper()
	dirs, err := os.ReadDir(filepath.Join(s.root, "io.containerd.snapshotter.v1.overlayfs/snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	return len(dirs)
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func name(kind string, n int) string { return fmt.Sprintf("%s%d", kind, n) }
