package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// headroom is how many bytes the heap may grow by, small as it is, before
	// garbage is collected: some ten starts of a container, none of which waits for it.
	headroom = 16 << 20
	// smallest is the least heap that the runtime collects at GOGC=100; it grows with GOGC.
	smallest = 4 << 20
	// restEvery is how often rest looks whether there was anything to do, and quiet
	// how many bytes are allocated meanwhile where there was not.
	restEvery = 2 * time.Second
	quiet     = 256 << 10
)

// rest lets the heap grow while there is work, and gives back to the system what
// it took when there was none for a while, until ctx ends.
func rest(ctx context.Context) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	tick := time.NewTicker(restEvery)
	defer tick.Stop()
	var h heap
	h.read()
	h.grow()
	for worked := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := h.allocated()
		h.read()
		switch idle := h.allocated()-before < quiet; {
		case !idle:
			worked = true
			h.grow()
		case worked:
			worked = false
			debug.FreeOSMemory()
		}
	}
}

// heap is what the runtime says of itself.
type heap struct{ said [2]metrics.Sample }

func (h *heap) read() {
	h.said[0].Name, h.said[1].Name = "/gc/heap/allocs:bytes", "/gc/heap/live:bytes"
	metrics.Read(h.said[:])
}

func (h *heap) allocated() uint64 { return h.said[0].Value.Uint64() }

// grow sets when garbage is collected next.
func (h *heap) grow() { debug.SetGCPercent(percent(h.said[1].Value.Uint64())) }

// percent is the GOGC by which headroom is allocated beside what is live before
// garbage is collected, or as much as is live where that is more.
func percent(live uint64) int { return int(max(100, headroom*100/max(live, smallest))) }
