package metrics

import (
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gantryd/gantry/internal/wire"
)

// group is the directory of one cgroup; empty where the controller is not there,
// and all of it reads as zero then.
type group string

func (g group) read(file string) string {
	if g == "" {
		return ""
	}
	data, err := os.ReadFile(filepath.Join(string(g), file))
	if err != nil {
		return ""
	}
	return string(data)
}

// number reads a file with one number. "max" is no limit and reads as noLimit.
func (g group) number(file string, noLimit uint64) uint64 {
	s := strings.TrimSpace(g.read(file))
	if s == "max" {
		return noLimit
	}
	n, _ := strconv.ParseUint(s, 10, 64)
	return n
}

// table reads a file of lines "key number".
func (g group) table(file string) map[string]uint64 {
	t := map[string]uint64{}
	for line := range strings.Lines(g.read(file)) {
		if f := strings.Fields(line); len(f) == 2 {
			t[f[0]], _ = strconv.ParseUint(f[1], 10, 64)
		}
	}
	return t
}

const unlimited = math.MaxUint64

// put encodes one number.
func put(c *wire.Codec, num int, v uint64) { wire.Uint(c, num, &v) }

// putTable encodes t's keys as the fields from first on.
func putTable(c *wire.Codec, first int, t map[string]uint64, keys ...string) {
	for i, k := range keys {
		put(c, first+i, t[k])
	}
}

// pids is the same message in both versions.
func (g group) pids(c *wire.Codec) {
	put(c, 1, g.number("pids.current", 0))
	put(c, 2, g.number("pids.max", 0))
}

// hugetlb calls f for every page size that the cgroup counts.
func (g group) hugetlb(f func(pagesize string)) {
	if g == "" {
		return
	}
	entries, err := os.ReadDir(string(g))
	if err != nil {
		return
	}
	for _, e := range entries {
		size, ok := strings.CutPrefix(e.Name(), "hugetlb.")
		if size, usage, _ := strings.Cut(size, "."); ok && (usage == "current" || usage == "usage_in_bytes") {
			f(size)
		}
	}
}
