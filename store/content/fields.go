package content

import (
	"strconv"

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
