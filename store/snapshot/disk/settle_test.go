package disk_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"

	"github.com/gantryd/gantry/store/snapshot"
	"github.com/gantryd/gantry/store/snapshot/disk"
)

// marks reads which snapshots are marked as not on disk, and marks more as of boot.
// Nobody else has the database open.
func marks(t *testing.T, root, boot string, names ...string) (marked int) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("gantry")).Bucket([]byte("unsynced"))
		marked = b.Stats().KeyN
		for _, name := range names {
			id := tx.Bucket([]byte("v1")).Bucket([]byte("snapshots")).Bucket([]byte(name)).Get([]byte("id"))
			if err := b.Put(slices.Clone(id), []byte(boot)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return marked
}

// layers makes committed snapshots, each on the one before; the lowest has the
// highest id, as layers that are extracted at the same time may.
func layers(t *testing.T, s *disk.Snapshotter, names ...string) {
	t.Helper()
	for _, name := range slices.Backward(names) {
		if _, err := s.Prepare(t.Context(), "extract "+name, "", nil); err != nil {
			t.Fatal(err)
		}
	}
	parent := ""
	for _, name := range names {
		if err := s.CommitOnto(t.Context(), name, "extract "+name, parent, nil); err != nil {
			t.Fatal(err)
		}
		parent = name
	}
}

func there(t *testing.T, s *disk.Snapshotter) (names []string) {
	t.Helper()
	if err := s.Walk(t.Context(), func(i snapshot.Info) error { names = append(names, i.Name); return nil }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	return names
}

func TestLayersThatWereNotOnDiskBeforeAPowerCut(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	layers(t, s, "a1", "a2", "a3") // nothing stands on them
	layers(t, s, "b1", "b2", "b3") // a container stands on b2
	layers(t, s, "c1", "c2")       // of which c1 was on disk
	if _, err := s.Prepare(t.Context(), "container", "b2", nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	marks(t, root, "another boot", "a1", "a2", "a3", "b1", "b2", "b3", "c2")

	want := []string{"b1", "b2", "c1", "container"}
	for range 2 { // and the next time it is known again
		s = open(t, root)
		if got := there(t, s); !slices.Equal(got, want) {
			t.Errorf("there are %v, want %v", got, want)
		}
		if got, err := s.Torn(); err != nil || !slices.Equal(got, []string{"container"}) {
			t.Errorf("torn are %v, %v", got, err)
		}
		if _, err := s.Mounts(t.Context(), "container"); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "pull the image again") {
			t.Errorf("mounts of what stands on a torn layer: %v", err)
		}
		if _, err := s.Prepare(t.Context(), "another", "b1", nil); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("prepare on a torn layer: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}

	s = open(t, root)
	for _, key := range []string{"container", "b2", "b1"} {
		if err := s.Remove(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	layers(t, s, "b1", "b2") // unpacked anew
	if _, err := s.Prepare(t.Context(), "container", "b2", nil); err != nil {
		t.Error(err)
	}
	if err := s.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(root, "snapshots")); err != nil || len(left) != 4 {
		t.Errorf("there are the directories %v, %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := marks(t, root, ""); n != 0 {
		t.Errorf("%d marks are left", n)
	}
}

func TestAKilledDaemonsLayersAreBelievedInTheSameBoot(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	layers(t, s, "a1", "a2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := marks(t, root, ""); n != 0 {
		t.Errorf("%d marks are left by an end in order", n)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	marks(t, root, string(boot[:len(boot)-1]), "a1", "a2")
	s = open(t, root)
	if got := there(t, s); !slices.Equal(got, []string{"a1", "a2"}) {
		t.Errorf("there are %v", got)
	}
	if torn, err := s.Torn(); err != nil || len(torn) != 0 {
		t.Errorf("torn are %v, %v", torn, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if n := marks(t, root, ""); n != 0 {
		t.Errorf("%d marks are left by the next", n)
	}
}

// killedAt tells this test program to commit layers in a directory, and die.
const killedAt = "GANTRY_TEST_COMMIT_AND_DIE"

func TestACommitIsMarkedUntilItIsOnDisk(t *testing.T) {
	if root := os.Getenv(killedAt); root != "" {
		layers(t, open(t, root), "a1", "a2")
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	// The sync comes a second after the commit: a slow machine may be late once.
	marked := 0
	for try := 0; marked != 2; try++ {
		if try == 20 {
			t.Fatalf("%d layers are marked, want 2", marked)
		}
		root := t.TempDir()
		self := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		self.Env = append(os.Environ(), killedAt+"="+root)
		if out, err := self.CombinedOutput(); err == nil || self.ProcessState.ExitCode() != -1 {
			t.Fatalf("the program that was to be killed: %v: %s", err, out)
		}
		marked = marks(t, root, "")
	}
}

// TestMarksGoByThemselves reads a copy of the database, which its owner has locked.
func TestMarksGoByThemselves(t *testing.T) {
	root := t.TempDir()
	layers(t, open(t, root), "a1", "a2")
	left := func() int {
		data, err := os.ReadFile(filepath.Join(root, "metadata.db"))
		if err != nil {
			t.Fatal(err)
		}
		at := t.TempDir()
		if err := os.WriteFile(filepath.Join(at, "metadata.db"), data, 0o600); err != nil {
			t.Fatal(err)
		}
		return marks(t, at, "")
	}
	for end := time.Now().Add(time.Minute); left() > 0; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("marks are left after a minute")
		}
	}
}
