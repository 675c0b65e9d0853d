package engine

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	eventsapi "github.com/moby/moby/api/types/events"
)

// keptEvents is how many events are kept for those who ask with since, and how
// far a listener may fall behind before it misses some.
const keptEvents = 1024

// events is what happened, for GET /events. Listeners read the same ring, each
// at its own speed, so that a slow one holds up nobody.
type events struct {
	mu    sync.Mutex
	ring  []eventsapi.Message // in the order of publishing; at most keptEvents
	first uint64              // the number of ring[0]; numbers only grow
	more  chan struct{}       // closed at the next event
}

func newEvents() *events { return &events{more: make(chan struct{})} }

func (ev *events) routes() []route {
	return []route{
		{http.MethodGet, "/events", ev.stream},
	}
}

// publish tells every listener, and keeps the event for those who ask later.
func (ev *events) publish(typ eventsapi.Type, action eventsapi.Action, id string, attributes map[string]string) {
	ev.publishAt(time.Now(), typ, action, id, attributes)
}

// publishAt is publish for what happened at another time than now.
func (ev *events) publishAt(at time.Time, typ eventsapi.Type, action eventsapi.Action, id string, attributes map[string]string) {
	m := eventsapi.Message{
		Type: typ, Action: action, Scope: "local",
		Actor: eventsapi.Actor{ID: id, Attributes: maps.Clone(attributes)},
		Time:  at.Unix(), TimeNano: at.UnixNano(),
	}
	ev.mu.Lock()
	defer ev.mu.Unlock()
	if len(ev.ring) == keptEvents {
		// Moved in blocks, so that publishing stays cheap.
		drop := keptEvents / 4
		ev.ring = slices.Delete(ev.ring, 0, drop)
		ev.first += uint64(drop)
	}
	ev.ring = append(ev.ring, m)
	close(ev.more)
	ev.more = make(chan struct{})
}

// from gives the events with the number n and above, the number of the next, and
// a channel that is closed when there is one.
func (ev *events) from(n uint64) ([]eventsapi.Message, uint64, <-chan struct{}) {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	n = max(n, ev.first)
	next := ev.first + uint64(len(ev.ring))
	if n > next {
		n = next
	}
	return slices.Clone(ev.ring[n-ev.first:]), next, ev.more
}

// stream is GET /events.
func (ev *events) stream(w http.ResponseWriter, r *http.Request) error {
	since, err := parseTime(r.FormValue("since"))
	if err != nil {
		return err
	}
	until, err := parseTime(r.FormValue("until"))
	if err != nil {
		return err
	}
	f, err := parseFilters(r, "config", "container", "daemon", "event", "image", "label", "network",
		"node", "plugin", "scope", "secret", "service", "type", "volume", "builder")
	if err != nil {
		return err
	}
	var n uint64
	if since.IsZero() {
		_, n, _ = ev.from(1<<63 - 1)
	} else if !until.IsZero() && until.Before(since) {
		return invalid("until cannot be before since")
	}

	var end <-chan time.Time
	if !until.IsZero() {
		timer := time.NewTimer(time.Until(until))
		defer timer.Stop()
		end = timer.C
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	rc.Flush()
	enc := json.NewEncoder(w)
	for {
		ms, next, more := ev.from(n)
		n = next
		for _, m := range ms {
			at := time.Unix(0, m.TimeNano)
			if at.Before(since) || !until.IsZero() && at.After(until) || !wanted(f, m) {
				continue
			}
			if enc.Encode(withLegacy(m)) != nil {
				return errStreamed
			}
		}
		rc.Flush()
		select {
		case <-more:
		case <-end:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}

// legacyMessage has the fields that were removed in API 1.52 beside those of today.
type legacyMessage struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	eventsapi.Message
}

func withLegacy(m eventsapi.Message) legacyMessage {
	l := legacyMessage{Message: m}
	switch m.Type {
	case eventsapi.ContainerEventType:
		l.Status, l.ID, l.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	case eventsapi.ImageEventType:
		l.Status, l.ID = string(m.Action), m.Actor.ID
	}
	return l
}

// wanted reports whether m passes f.
func wanted(f filters, m eventsapi.Message) bool {
	attr := m.Actor.Attributes
	action, _, _ := strings.Cut(string(m.Action), ":")
	if !f.exact("type", string(m.Type)) || !f.exact("scope", m.Scope) || !f.labels("label", attr) {
		return false
	}
	if !f.exact("event", string(m.Action)) && !f.exact("event", action) {
		return false
	}
	for _, typ := range []eventsapi.Type{
		eventsapi.ContainerEventType, eventsapi.DaemonEventType, eventsapi.NetworkEventType,
		eventsapi.VolumeEventType, eventsapi.PluginEventType, eventsapi.BuilderEventType,
	} {
		key := string(typ)
		if !f.has(key) {
			continue
		}
		if m.Type != typ || !f.prefix(key, m.Actor.ID, attr["name"]) {
			return false
		}
	}
	return wantedImage(f, m)
}

// wantedImage passes events of an image, and of containers made from it.
func wantedImage(f filters, m eventsapi.Message) bool {
	if !f.has("image") {
		return true
	}
	name := m.Actor.Attributes["image"]
	if m.Type == eventsapi.ImageEventType {
		name = m.Actor.Attributes["name"]
	}
	return f.exact("image", m.Actor.ID) || f.exact("image", name) ||
		f.exact("image", withoutTag(m.Actor.ID)) || f.exact("image", withoutTag(name))
}

// withoutTag cuts the tag off an image's name, but not the port off its host.
func withoutTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
