package shim

import (
	"errors"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/shim/internal/ttrpc"
)

// codes is the one table from kinds of error to google.rpc.Code.
var codes = []struct {
	kind error
	code int32
}{
	{errdefs.ErrNotFound, 5},
	{errdefs.ErrAlreadyExists, 6},
	{errdefs.ErrInvalidArgument, 3},
	{errdefs.ErrFailedPrecondition, 9},
	{errdefs.ErrNotImplemented, 12},
	{errdefs.ErrUnavailable, 14},
	{errdefs.ErrPermissionDenied, 7},
	{errdefs.ErrResourceExhausted, 8},
	{errdefs.ErrOutOfRange, 11},
}

// status gives err its code on the wire; an error of no known kind is UNKNOWN (2).
func status(err error) error {
	if err == nil {
		return nil
	}
	for _, c := range codes {
		if errors.Is(err, c.kind) {
			return &ttrpc.Status{Code: c.code, Message: err.Error()}
		}
	}
	return &ttrpc.Status{Code: 2, Message: err.Error()}
}
