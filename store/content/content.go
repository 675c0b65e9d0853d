// Package content is the door to blobs by digest. local keeps them in a
// directory with containerd's layout, proxy asks a containerd over gRPC, and
// contenttest holds every implementation to the same behaviour.
//
// Kinds of error are those of errdefs: NotFound, AlreadyExists (a blob that is
// committed already), Unavailable (a ref that another writer holds),
// FailedPrecondition (wrong size or digest at commit), InvalidArgument.
package content

import (
	"context"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Info is what a store knows of a blob.
type Info struct {
	Digest    digest.Digest
	Size      int64 // bytes
	CreatedAt time.Time
	UpdatedAt time.Time
	Labels    map[string]string
}

// Status is what a store knows of an ingest that is under way, or was cut off.
type Status struct {
	Ref       string
	Offset    int64 // bytes safely received: where a resume goes on
	Total     int64 // bytes expected, 0 if unknown
	Expected  digest.Digest
	StartedAt time.Time
	UpdatedAt time.Time
}

// ReaderAt reads a committed blob. Its owner closes it.
type ReaderAt interface {
	io.ReaderAt
	io.Closer
	Size() int64
}

// Writer is an ingest. Close without Commit keeps what was received, so that
// Writer with the same ref goes on at Status().Offset.
type Writer interface {
	io.WriteCloser
	// Digest of all bytes received so far, those before a resume included.
	Digest() digest.Digest
	Status() (Status, error)
	// Truncate throws away what lies beyond size; only 0 must be supported.
	Truncate(size int64) error
	// Commit makes the blob visible. size 0 and an empty digest are not checked.
	// Labels are set on the blob.
	Commit(ctx context.Context, size int64, expected digest.Digest, labels map[string]string) error
}

// Store is the door.
type Store interface {
	Info(ctx context.Context, dgst digest.Digest) (Info, error)
	// Update writes labels: with no fieldpaths all of them, else those named
	// ("labels.NAME" or "labels").
	Update(ctx context.Context, info Info, fieldpaths ...string) (Info, error)
	// Walk calls fn for every blob that matches one of the filters (containerd
	// filter syntax; none is all).
	Walk(ctx context.Context, fn func(Info) error, filters ...string) error
	Delete(ctx context.Context, dgst digest.Digest) error
	// ReaderAt opens the blob; desc.Digest suffices.
	ReaderAt(ctx context.Context, desc ocispec.Descriptor) (ReaderAt, error)
	// Writer opens or resumes the ingest ref. desc may be empty; where its digest
	// is committed already the answer is AlreadyExists.
	Writer(ctx context.Context, ref string, desc ocispec.Descriptor) (Writer, error)
	Status(ctx context.Context, ref string) (Status, error)
	ListStatuses(ctx context.Context, filters ...string) ([]Status, error)
	Abort(ctx context.Context, ref string) error
}
