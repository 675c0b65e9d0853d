package local_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/content/contenttest"
	"github.com/gantryd/gantry/store/content/local"
)

func TestLocalStoreBehavesAsAStore(t *testing.T) {
	contenttest.Run(t, func(t *testing.T) (context.Context, content.Store) {
		s, err := local.NewWithLabels(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return t.Context(), s
	})
}

func TestAnIngestSurvivesItsProcess(t *testing.T) {
	root := t.TempDir()
	first, err := local.New(root)
	if err != nil {
		t.Fatal(err)
	}
	w, err := first.Writer(t.Context(), "r", ocispec.Descriptor{Size: 6})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	// No Close: the process is gone. A second store knows nothing of the first.
	second, err := local.New(root)
	if err != nil {
		t.Fatal(err)
	}
	w2, err := second.Writer(t.Context(), "r", ocispec.Descriptor{Size: 6})
	if err != nil {
		t.Fatal(err)
	}
	defer w2.Close()
	if st, err := w2.Status(); err != nil || st.Offset != 3 || st.Total != 6 {
		t.Fatalf("status is %+v, %v", st, err)
	}
	if _, err := w2.Write([]byte("def")); err != nil {
		t.Fatal(err)
	}
	if err := w2.Commit(t.Context(), 6, digest.FromString("abcdef"), nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	left, err := os.ReadDir(filepath.Join(root, "ingest"))
	if err != nil || len(left) != 0 {
		t.Errorf("ingest has %v, %v", left, err)
	}
}

func TestATornIngestBeginsAgain(t *testing.T) {
	root := t.TempDir()
	s, err := local.New(root)
	if err != nil {
		t.Fatal(err)
	}
	// A crash came between mkdir and the ref.
	dir := filepath.Join(root, "ingest", digest.FromString("r").Encoded())
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if all, err := s.ListStatuses(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("statuses are %v, %v", all, err)
	}
	w, err := s.Writer(t.Context(), "r", ocispec.Descriptor{})
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
}

func TestAHostileDigestMakesNoPath(t *testing.T) {
	s, err := local.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dgst := range []digest.Digest{"", "sha256:../../../etc/passwd", "../x:abc", "sha256:abc"} {
		if _, err := s.Info(t.Context(), dgst); !errdefs.IsInvalidArgument(err) {
			t.Errorf("info of %q: %v", dgst, err)
		}
	}
}

func TestAFullDiskIsSaidAndTheIngestKept(t *testing.T) {
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("mount a small tmpfs (needs CAP_SYS_ADMIN): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s, err := local.New(root)
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Writer(t.Context(), "big", ocispec.Descriptor{})
	if err != nil {
		t.Fatal(err)
	}
	n, err := w.Write(bytes.Repeat([]byte{1}, 2<<20))
	if !errors.Is(err, unix.ENOSPC) || !errdefs.IsResourceExhausted(err) {
		t.Errorf("write gave %v", err)
	}
	if _, err := s.Writer(t.Context(), "another", ocispec.Descriptor{Size: 1}); !errors.Is(err, unix.ENOSPC) || !errdefs.IsResourceExhausted(err) {
		t.Errorf("another ingest gave %v", err)
	}
	if err := w.Close(); err != nil && !errdefs.IsResourceExhausted(err) {
		t.Error(err)
	}
	if st, err := s.Status(t.Context(), "big"); err != nil || st.Offset != int64(n) {
		t.Errorf("status is %+v, %v, want offset %d", st, err, n)
	}
	if err := s.Abort(t.Context(), "big"); err != nil {
		t.Error(err)
	}
}
