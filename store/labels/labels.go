// Package labels says what an Update of labels does, for every store alike.
package labels

import (
	"fmt"
	"maps"
	"strings"

	"github.com/containerd/errdefs"
)

// Merge is the outcome of an Update that names fieldpaths: with none, or
// "labels", all labels are those given; with "labels.NAME" only NAME is, and an
// empty value removes it.
func Merge(have, given map[string]string, fieldpaths []string) (map[string]string, error) {
	if len(fieldpaths) == 0 {
		return maps.Clone(given), nil
	}
	out := maps.Clone(have)
	if out == nil {
		out = map[string]string{}
	}
	for _, p := range fieldpaths {
		name, one := strings.CutPrefix(p, "labels.")
		switch {
		case p == "labels":
			out = maps.Clone(given)
		case !one:
			return nil, fmt.Errorf("update field %q: only labels can be updated: %w", p, errdefs.ErrInvalidArgument)
		case given[name] == "":
			delete(out, name)
		default:
			out[name] = given[name]
		}
	}
	return out, nil
}
