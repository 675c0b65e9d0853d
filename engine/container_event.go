package engine

import (
	"maps"
	"strconv"
	"time"

	eventsapi "github.com/moby/moby/api/types/events"
)

// publish tells that something happened to k. The event has k's labels, image and
// name beside attrs.
func (c *containers) publish(k *ctr, action eventsapi.Action, attrs map[string]string) {
	c.publishAt(k, time.Now(), action, attrs)
}

func (c *containers) publishAt(k *ctr, at time.Time, action eventsapi.Action, attrs map[string]string) {
	rec := k.snapshot()
	all := map[string]string{}
	maps.Copy(all, rec.Config.Labels)
	all["image"], all["name"] = rec.Image, rec.Name
	maps.Copy(all, attrs)
	c.events.publishAt(at, eventsapi.ContainerEventType, action, k.id, all)
}

func formatUint(n uint64) string { return strconv.FormatUint(n, 10) }
