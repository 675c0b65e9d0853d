package content

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/filter"
)

// Field gives filters digest, size and labels of i.
func (i Info) Field(path []string) (string, bool) {
	switch path[0] {
	case "digest":
		return i.Digest.String(), i.Digest != ""
	case "size":
		return strconv.FormatInt(i.Size, 10), true
	case "labels":
		return filter.Labels(i.Labels, path[1:])
	}
	return "", false
}

// Field gives filters the ref of s.
func (s Status) Field(path []string) (string, bool) {
	if path[0] == "ref" {
		return s.Ref, true
	}
	return "", false
}

// MergeLabels is the outcome of an Update that names fieldpaths: with none, or
// "labels", all labels are those given; with "labels.NAME" only NAME is, and an
// empty value removes it.
func MergeLabels(have, given map[string]string, fieldpaths []string) (map[string]string, error) {
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
