package engine

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/gantryd/gantry/api/journey"
)

// explainHeader asks the engine to keep the journey of a create or start.
const explainHeader = "X-Gantry-Explain"

// keptJourneys is how many containers' journeys are remembered: a container that
// is removed at its end is asked about afterwards.
const keptJourneys = 64

// journal collects the journey of one container. A nil one collects nothing.
type journal struct {
	c  *containers
	id string

	mu    sync.Mutex
	trail metadata.MD
}

// journal gives the journal of the container id, or nil if r does not ask for one.
func (c *containers) journal(r *http.Request, id string) *journal {
	if r.Header.Get(explainHeader) != "1" {
		return nil
	}
	return &journal{c: c, id: id}
}

// step begins a span; what it returns ends it.
func (j *journal) step(name string) func() {
	if j == nil {
		return func() {}
	}
	begin := time.Now()
	return func() {
		j.add(journey.Span{Part: "engine", Name: name, Start: begin, Took: time.Since(begin)})
		j.collect()
	}
}

func (j *journal) add(spans ...journey.Span) {
	j.c.mu.Lock()
	defer j.c.mu.Unlock()
	if _, known := j.c.journeys[j.id]; !known {
		j.c.told = append(j.c.told, j.id)
		if len(j.c.told) > keptJourneys {
			delete(j.c.journeys, j.c.told[0])
			j.c.told = j.c.told[1:]
		}
	}
	j.c.journeys[j.id] = append(j.c.journeys[j.id], spans...)
}

// grpc asks the parts below to tell their spans.
func (j *journal) grpc(ctx context.Context) context.Context {
	if j == nil {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, journey.Key, "1")
}

// trailer receives the spans of a call; step's end collects them.
func (j *journal) trailer() grpc.CallOption {
	if j == nil {
		return grpc.EmptyCallOption{}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.trail = metadata.MD{}
	return grpc.Trailer(&j.trail)
}

// collect takes over the spans of the call that has ended.
func (j *journal) collect() {
	j.mu.Lock()
	md := j.trail
	j.trail = nil
	j.mu.Unlock()
	for _, v := range md.Get(journey.Trailer) {
		var spans []journey.Span
		if json.Unmarshal([]byte(v), &spans) == nil {
			j.add(spans...)
		}
	}
}

// getJourney is GET /containers/{id}/journey. The container may be gone already.
func (c *containers) getJourney(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	if k, err := c.find(id); err == nil {
		id = k.id
	}
	c.mu.RLock()
	spans, ok := c.journeys[id]
	c.mu.RUnlock()
	if !ok {
		return notFound("No journey of container: %s", id)
	}
	return replyJSON(w, http.StatusOK, spans)
}

// since adds a span that began before the journal did.
func (j *journal) since(name string, begin time.Time) {
	j.add(journey.Span{Part: "engine", Name: name, Start: begin, Took: time.Since(begin)})
}
