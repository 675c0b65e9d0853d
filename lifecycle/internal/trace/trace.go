// Package trace times the steps of one request that a client wants explained
// (api/journey). A request that nobody wants explained has no trace in its
// context, and a step costs it nothing.
package trace

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/gantryd/gantry/api/journey"
)

// Trace is the steps of one request.
type Trace struct {
	mu    sync.Mutex
	spans []journey.Span
}

type contextKey struct{}

// With starts a trace in ctx.
func With(ctx context.Context) (context.Context, *Trace) {
	t := &Trace{}
	return context.WithValue(ctx, contextKey{}, t), t
}

// From gives the trace in ctx, nil where there is none.
func From(ctx context.Context) *Trace {
	t, _ := ctx.Value(contextKey{}).(*Trace)
	return t
}

// Step begins a step and gives the function that ends it.
func Step(ctx context.Context, name, detail string) (end func()) {
	t := From(ctx)
	if t == nil {
		return func() {}
	}
	start := time.Now()
	return func() {
		t.Add(journey.Span{Part: "lifecycle", Name: name, Start: start, Took: time.Since(start), Detail: detail})
	}
}

// Add takes a span that another timed.
func (t *Trace) Add(spans ...journey.Span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spans = append(t.spans, spans...)
}

// JSON renders the spans in the order in which they began.
func (t *Trace) JSON() ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(t.spans, func(a, b journey.Span) int { return a.Start.Compare(b.Start) })
	return json.Marshal(t.spans)
}
