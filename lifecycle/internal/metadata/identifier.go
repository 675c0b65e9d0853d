package metadata

import (
	"fmt"
	"regexp"

	"github.com/containerd/errdefs"
)

// identifier is containerd's form of a namespace's and a container's name
// (pkg/identifiers): safe as an element of a path.
var identifier = regexp.MustCompile(`^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$`)

const maxIdentifier = 76

// CheckIdentifier refuses a name that is none. The kind of its errors is
// InvalidArgument.
func CheckIdentifier(kind, id string) error {
	if len(id) == 0 || len(id) > maxIdentifier || !identifier.MatchString(id) {
		return fmt.Errorf("%s %q: want 1 to %d letters and digits, with single . _ - between them: %w",
			kind, id, maxIdentifier, errdefs.ErrInvalidArgument)
	}
	return nil
}
