package metadata_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/lifecycle/internal/exchange"
	"github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/content/local"
	"github.com/gantryd/gantry/store/snapshot"
	"github.com/gantryd/gantry/store/snapshot/disk"
)

// hindered is a snapshotter that asks before it prepares.
type hindered struct {
	*disk.Snapshotter
	ask func() error
}

func (h *hindered) Prepare(ctx context.Context, key, parent string, labels map[string]string) ([]mount.Mount, error) {
	if err := h.ask(); err != nil {
		return nil, err
	}
	return h.Snapshotter.Prepare(ctx, key, parent, labels)
}

func openHindered(t *testing.T) (*metadata.DB, *metadata.Snapshots, *hindered, *exchange.Exchange) {
	t.Helper()
	root := t.TempDir()
	below, err := disk.Overlay(filepath.Join(root, "o"))
	if err != nil {
		t.Fatal(err)
	}
	h := &hindered{below, func() error { return nil }}
	blobs, err := local.New(filepath.Join(root, "c"))
	if err != nil {
		t.Fatal(err)
	}
	events := &exchange.Exchange{}
	db, err := metadata.Open(filepath.Join(root, "meta.db"), blobs, map[string]snapshot.Snapshotter{"overlayfs": h}, events, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(db.Close(), below.Close()); err != nil {
			t.Error(err)
		}
	})
	sn, err := db.Snapshots(metadata.Scope{Namespace: "ns"}, "")
	if err != nil {
		t.Fatal(err)
	}
	return db, sn, h, events
}

// count says how many snapshots there are; with their records, or below.
func count(t *testing.T, s interface {
	Walk(context.Context, func(snapshot.Info) error, ...string) error
},
) (n int) {
	t.Helper()
	if err := s.Walk(t.Context(), func(snapshot.Info) error { n++; return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

var kept = map[string]string{gcRoot: "x"}

func TestASnapshotThatCannotBeMadeLeavesNoRecord(t *testing.T) {
	_, sn, h, _ := openHindered(t)
	broken := errors.New("broken")
	h.ask = func() error { return broken }
	if _, err := sn.Prepare(t.Context(), "s", "", kept); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	h.ask = func() error { return nil }
	if _, err := sn.Prepare(t.Context(), "s", "", kept); err != nil {
		t.Errorf("the name is not free again: %v", err)
	}
}

func TestOfTwoSnapshotsWithOneNameOneIsMade(t *testing.T) {
	_, sn, h, _ := openHindered(t)
	var both sync.WaitGroup // neither is made before the other has found the name free
	both.Add(2)
	h.ask = func() error { both.Done(); both.Wait(); return nil }
	errs := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := sn.Prepare(t.Context(), "s", "", kept)
			errs <- err
		}()
	}
	one, other := <-errs, <-errs
	if one != nil {
		one, other = other, one
	}
	if one != nil || !errdefs.IsAlreadyExists(other) {
		t.Errorf("got %v and %v, want one to be made and one to exist already", one, other)
	}
	if n, below := count(t, sn), count(t, h.Snapshotter); n != 1 || below != 1 {
		t.Errorf("%d records, %d snapshots, want one", n, below)
	}
}

func TestASnapshotThatIsCollectedWhileItIsMadeLeavesNothing(t *testing.T) {
	db, sn, h, events := openHindered(t)
	sub, err := events.Subscribe(`topic=="/snapshot/remove"`)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	collected := make(chan struct{})
	go sub.Each(t.Context(), func(*types.Envelope) error { close(collected); return io.EOF })
	h.ask = func() error { // nothing refers to it: it is garbage as soon as it is recorded
		for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
			db.Collect()
			select {
			case <-collected:
				return nil
			case <-time.After(time.Millisecond):
			}
		}
		return errors.New("it is not collected in 30 s")
	}
	_, err = sn.Prepare(t.Context(), "s", "", nil)
	if !errdefs.IsNotFound(err) {
		t.Errorf("got %v, want NotFound", err)
	}
	if below := count(t, h.Snapshotter); below != 0 {
		t.Errorf("%d snapshots are left", below)
	}
}
