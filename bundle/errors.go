package bundle

import (
	"fmt"

	"github.com/containerd/errdefs"
)

// refuse is an InvalidArgument with a text that is shown as it is.
func refuse(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}
