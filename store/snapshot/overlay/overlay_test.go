package overlay_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantryd/gantry/store/snapshot"
	"github.com/gantryd/gantry/store/snapshot/overlay"
	"github.com/gantryd/gantry/store/snapshot/snapshottest"
)

func open(t *testing.T, root string) *overlay.Snapshotter {
	t.Helper()
	s, err := overlay.New(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestOverlayBehavesAsASnapshotter(t *testing.T) {
	snapshottest.Run(t, func(t *testing.T) (context.Context, snapshot.Snapshotter) {
		return t.Context(), open(t, t.TempDir())
	})
}

func TestWhatACrashLeftIsInNobodysWay(t *testing.T) {
	root := t.TempDir()
	dirs := filepath.Join(root, "snapshots")
	// A process died between making the directory and committing its record, and
	// another between removing a record and removing its directory.
	for _, dir := range []string{"1/fs/half", "1/work", "7/fs/old", "new-123/fs", "rm-5-x/fs"} {
		if err := os.MkdirAll(filepath.Join(dirs, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	s := open(t, root)
	m, err := s.Prepare(t.Context(), "a", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(m[0].Source); err != nil || len(left) != 0 {
		t.Errorf("a new snapshot has %v, %v", left, err)
	}
	if err := s.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dirs)
	if err != nil || len(left) != 1 || left[0].Name() != "1" {
		t.Errorf("after cleanup there are %v, %v", left, err)
	}
}

func TestRemoveLeavesNoDirectory(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if _, err := s.Prepare(t.Context(), "a", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "snapshots")); err != nil || len(left) != 0 {
		t.Errorf("there are %v, %v", left, err)
	}
}
