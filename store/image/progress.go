package image

import (
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// reportEvery is the shortest time between two reports of the same phase of a blob.
const reportEvery = 100 * time.Millisecond

// reporter hands progress to one function, one call at a time.
type reporter struct {
	name string
	fn   func(Progress)

	mu   sync.Mutex
	last map[digest.Digest]report
}

type report struct {
	phase Phase
	at    time.Time
}

func newReporter(name string, fn func(Progress)) *reporter {
	return &reporter{name: name, fn: fn, last: map[digest.Digest]report{}}
}

// say reports offset bytes of desc in a phase.
func (r *reporter) say(desc ocispec.Descriptor, phase Phase, offset int64) {
	if r == nil || r.fn == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if l := r.last[desc.Digest]; l.phase == phase && now.Sub(l.at) < reportEvery && offset < desc.Size {
		return
	}
	r.last[desc.Digest] = report{phase, now}
	r.fn(Progress{Name: r.name, Desc: desc, Phase: phase, Offset: offset, Total: desc.Size})
}

// final reports that desc is all there.
func (r *reporter) final(desc ocispec.Descriptor, phase Phase) { r.say(desc, phase, desc.Size) }
