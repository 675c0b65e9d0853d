// Package local keeps blobs in a directory with containerd's layout, so that a
// containerd can be started on it, and back:
//
//	blobs/ALGORITHM/HEX
//	ingest/HEX/{data,ref,startedat,updatedat,total,expected}
//
// where HEX of an ingest is the sha256 of its ref. expected is our own; containerd
// passes over it. Labels are not kept here: whoever gives the store names and
// namespaces (lifecycle's database) keeps them too. NewWithLabels is for a store
// that stands alone.
package local

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/internal/filter"
	"github.com/gantryd/gantry/store/content"
	"github.com/gantryd/gantry/store/labels"
)

// Store is a content store in a directory. It is safe for concurrent use by one
// process.
type Store struct {
	root   string
	labels labelDir

	mu   sync.Mutex
	refs map[string]struct{} // held by a writer
}

var _ content.Store = (*Store)(nil)

// New opens, or makes, the store in root.
func New(root string) (*Store, error) {
	for _, dir := range []string{filepath.Join(root, "blobs", "sha256"), filepath.Join(root, "ingest")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("open content store: %w", err)
		}
	}
	return &Store{root: root, refs: map[string]struct{}{}}, nil
}

// path of a blob. Digests come from outside: only a valid one makes a path.
func (s *Store) path(dgst digest.Digest) (string, error) {
	if err := dgst.Validate(); err != nil {
		return "", fmt.Errorf("digest %q: %w: %w", dgst, err, errdefs.ErrInvalidArgument)
	}
	return filepath.Join(s.root, "blobs", dgst.Algorithm().String(), dgst.Encoded()), nil
}

// Info tells size and times of a blob.
func (s *Store) Info(_ context.Context, dgst digest.Digest) (content.Info, error) {
	p, err := s.path(dgst)
	if err != nil {
		return content.Info{}, err
	}
	fi, err := os.Stat(p)
	if err != nil {
		return content.Info{}, notFound("content", dgst, err)
	}
	return s.info(dgst, fi)
}

func (s *Store) info(dgst digest.Digest, fi fs.FileInfo) (content.Info, error) {
	info := content.Info{Digest: dgst, Size: fi.Size(), CreatedAt: fi.ModTime(), UpdatedAt: fi.ModTime()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		if at := time.Unix(st.Atim.Unix()); at.After(info.UpdatedAt) {
			info.UpdatedAt = at
		}
	}
	var err error
	info.Labels, err = s.labels.of(dgst)
	return info, err
}

// Update writes labels; without somewhere to keep them it is FailedPrecondition.
func (s *Store) Update(ctx context.Context, info content.Info, fieldpaths ...string) (content.Info, error) {
	if s.labels == "" {
		return content.Info{}, fmt.Errorf("update labels of %s: this store keeps none: %w", info.Digest, errdefs.ErrFailedPrecondition)
	}
	have, err := s.Info(ctx, info.Digest)
	if err != nil {
		return content.Info{}, err
	}
	have.Labels, err = labels.Merge(have.Labels, info.Labels, fieldpaths)
	if err != nil {
		return content.Info{}, err
	}
	if err := s.labels.set(info.Digest, have.Labels); err != nil {
		return content.Info{}, fmt.Errorf("update labels of %s: %w", info.Digest, err)
	}
	return have, nil
}

// Walk calls fn for every blob that a filter chooses. The filters know digest,
// size and labels.
func (s *Store) Walk(ctx context.Context, fn func(content.Info) error, filters ...string) error {
	f, err := filter.Parse(filters...)
	if err != nil {
		return err
	}
	algorithms, err := os.ReadDir(filepath.Join(s.root, "blobs"))
	if err != nil {
		return fmt.Errorf("list content: %w", err)
	}
	for _, alg := range algorithms {
		blobs, err := os.ReadDir(filepath.Join(s.root, "blobs", alg.Name()))
		if err != nil {
			return fmt.Errorf("list content: %w", err)
		}
		for _, e := range blobs {
			dgst := digest.NewDigestFromEncoded(digest.Algorithm(alg.Name()), e.Name())
			if dgst.Validate() != nil {
				continue // not ours
			}
			info, err := s.Info(ctx, dgst)
			if errdefs.IsNotFound(err) {
				continue // deleted meanwhile
			}
			if err == nil && f.Match(info.Field) {
				err = fn(info)
			}
			if err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Delete removes a blob. Whoever has it open reads on.
func (s *Store) Delete(_ context.Context, dgst digest.Digest) error {
	p, err := s.path(dgst)
	if err != nil {
		return err
	}
	if err := os.Remove(p); err != nil {
		return notFound("content", dgst, err)
	}
	return s.labels.set(dgst, nil)
}

// ReaderAt opens a blob.
func (s *Store) ReaderAt(_ context.Context, desc ocispec.Descriptor) (content.ReaderAt, error) {
	p, err := s.path(desc.Digest)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(p)
	if err != nil {
		return nil, notFound("content", desc.Digest, err)
	}
	fi, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open content %s: %w", desc.Digest, err)
	}
	return &reader{File: f, size: fi.Size()}, nil
}

// reader is an open blob. It is an *os.File to those who can use one.
type reader struct {
	*os.File
	size int64
}

func (r *reader) Size() int64 { return r.size }

// notFound gives a missing file its kind, with the name that the caller knows it by.
func notFound[T ~string](what string, name T, err error) error {
	if os.IsNotExist(err) {
		return fmt.Errorf("%s %s: %w", what, string(name), errdefs.ErrNotFound)
	}
	return fmt.Errorf("%s %s: %w", what, string(name), err)
}
