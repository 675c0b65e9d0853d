package main

import (
	"context"
	"runtime/debug"
	"testing"
)

func TestASmallHeapMayGrowAndALargeOneIsHeld(t *testing.T) {
	for _, c := range []struct {
		name string
		live uint64
		want int
	}{
		{"nothing is live", 0, 400},
		{"the runtime's own minimum counts for less", 1 << 20, 400},
		{"8 MiB grow by 16", 8 << 20, 200},
		{"16 MiB grow by 16", 16 << 20, 100},
		{"a large heap doubles, as by default", 1 << 30, 100},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := percent(c.live); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestRestLeavesTheCollectorAsItWas(t *testing.T) {
	old := debug.SetGCPercent(77)
	defer debug.SetGCPercent(old)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	rest(ctx)
	if got := debug.SetGCPercent(77); got != 77 {
		t.Errorf("GOGC is %d, want 77", got)
	}
}
