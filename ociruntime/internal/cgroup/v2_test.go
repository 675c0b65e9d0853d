package cgroup

import "testing"

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
