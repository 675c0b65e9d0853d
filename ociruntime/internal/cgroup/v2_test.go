package cgroup

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestNoLimitOfMemoryIsNoneOfSwap(t *testing.T) {
	none := int64(-1)
	got, err := settingsV2(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &none}})
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{}
	for _, s := range got {
		values[s.file] = s.value
	}
	if values["memory.max"] != "max" || values["memory.swap.max"] != "max" {
		t.Errorf("%v", values)
	}
}

func TestSharesBecomeAWeight(t *testing.T) {
	for _, c := range []struct {
		name         string
		shares, want uint64
	}{
		{"the least", 2, 1},
		{"below the least", 1, 1},
		{"the default", 1024, 100},
		{"the most", 262144, 10000},
		{"above the most", 1 << 40, 10000},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := CPUWeight(c.shares); got != c.want {
				t.Errorf("CPUWeight(%d) = %d, want %d", c.shares, got, c.want)
			}
		})
	}
}
