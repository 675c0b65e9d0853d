package format

import (
	"sort"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// ID is the 12 characters by which people know an object; "sha256:" goes.
func ID(id string, full bool) string {
	if full {
		return id
	}
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(len(id), 12)]
}

// Ellipsis shortens s to n characters, the last of them "…".
func Ellipsis(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// Ago is a time in the past as people say it: "3 minutes ago".
func Ago(unix int64) string {
	return units.HumanDuration(time.Since(time.Unix(unix, 0))) + " ago"
}

// Size is bytes in powers of ten with three digits: "4.26MB".
func Size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// Labels is a map as "a=1,b=2", sorted.
func Labels(m map[string]string) string {
	pairs := make([]string, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, k+"="+v)
	}
	sort.Strings(pairs)
	return strings.Join(pairs, ",")
}
