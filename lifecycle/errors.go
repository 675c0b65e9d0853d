package lifecycle

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/gantryd/gantry/internal/errs"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
)

// Errors become gRPC statuses here and nowhere else: their kinds are errdefs',
// and errgrpc is the table from those to codes that containerd's clients read
// back. A service returns its error as it is.

func unaryErrors(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	resp, err := handle(ctx, req)
	if err != nil {
		return nil, toGRPC(err)
	}
	return resp, nil
}

func streamErrors(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := handle(srv, ss); err != nil {
		return toGRPC(err)
	}
	return nil
}

// toGRPC also knows the kinds whose cause may be met at any write.
func toGRPC(err error) error {
	switch {
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT):
		err = errs.Because(errdefs.ErrResourceExhausted, "%w", err)
	case errors.Is(err, unix.EROFS):
		err = errs.Because(errdefs.ErrFailedPrecondition, "%w", err)
	}
	return errgrpc.ToGRPC(err)
}

// The metadata of every request (containerd docs/namespaces.md, docs/garbage-collection.md).
const (
	namespaceHeader = "containerd-namespace"
	leaseHeader     = "containerd-lease"
)

// scopeOf says for whom a request is: its namespace, which must be there, and its
// lease.
func scopeOf(ctx context.Context) (meta.Scope, error) {
	s := meta.Scope{Namespace: header(ctx, namespaceHeader), Lease: header(ctx, leaseHeader)}
	if s.Namespace == "" {
		return meta.Scope{}, fmt.Errorf("request without metadata %s: namespace is required: %w", namespaceHeader, errdefs.ErrFailedPrecondition)
	}
	return s, meta.CheckIdentifier("namespace", s.Namespace)
}

func header(ctx context.Context, key string) string {
	if v := metadata.ValueFromIncomingContext(ctx, key); len(v) > 0 {
		return v[0]
	}
	return ""
}
