package engine

import (
	"net/http"

	eventsapi "github.com/moby/moby/api/types/events"
)

// events is what happened, for GET /events.
type events struct{}

func newEvents() *events { return &events{} }

func (ev *events) routes() []route {
	return []route{
		{http.MethodGet, "/events", ev.stream},
	}
}

func (ev *events) stream(w http.ResponseWriter, r *http.Request) error { return nil }

// publish tells every listener, and keeps the event for those who ask later.
func (ev *events) publish(typ eventsapi.Type, action eventsapi.Action, id string, attributes map[string]string) {
}
