package disk_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/gantryd/gantry/store/snapshot"
	"github.com/gantryd/gantry/store/snapshot/disk"
	"github.com/gantryd/gantry/store/snapshot/snapshottest"
)

func open(t *testing.T, root string) *disk.Snapshotter {
	t.Helper()
	s, err := disk.Overlay(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestBothBehaveAsASnapshotter(t *testing.T) {
	for name, open := range map[string]func(root string) (*disk.Snapshotter, error){"overlayfs": disk.Overlay, "native": disk.Native} {
		t.Run(name, func(t *testing.T) {
			snapshottest.Run(t, func(t *testing.T) (context.Context, snapshot.Snapshotter) {
				s, err := open(t.TempDir())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { s.Close() })
				return t.Context(), s
			})
		})
	}
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

func TestADirectoryThatAPowerCutTookIsMadeAnew(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	if _, err := s.Prepare(t.Context(), "key", "", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Commit(t.Context(), "base", "key", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Prepare(t.Context(), "box", "base", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	taken := filepath.Join(root, "snapshots", "2")
	if err := os.RemoveAll(taken); err != nil {
		t.Fatal(err)
	}
	s = open(t, root)
	if _, err := s.Mounts(t.Context(), "box"); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{"fs", "work"} {
		if _, err := os.Stat(filepath.Join(taken, dir)); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(filepath.Join(root, "snapshots"))
	if err != nil || len(left) != 2 {
		t.Errorf("there are %v, %v", left, err)
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
