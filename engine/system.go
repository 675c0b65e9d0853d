package engine

import (
	"net/http"

	"github.com/gantryd/gantry/engine/internal/ctrd"
)

// system is the daemon itself: is it there, what is it, how much space it takes.
type system struct {
	cfg        Config
	ctrd       *ctrd.Client
	events     *events
	containers *containers
	images     *images
	networks   *networks
	volumes    *volumes
	id         func() string // made once, kept in Root
}

func newSystem(cfg Config, client *ctrd.Client, ev *events, cs *containers, is *images, ns *networks, vs *volumes) *system {
	s := &system{cfg: cfg, ctrd: client, events: ev, containers: cs, images: is, networks: ns, volumes: vs}
	s.id = s.identity()
	return s
}

func (s *system) routes() []route {
	const get = http.MethodGet
	return append([]route{
		{http.MethodHead, "/_ping", s.ping},
		{get, "/_ping", s.ping},
		{get, "/version", s.getVersion},
		{get, "/info", s.getInfo},
		{get, "/system/df", s.getUsage},
	}, s.absentRoutes()...)
}

// ping is HEAD and GET /_ping: the first call of every client. Api-Version and
// the like are on every answer.
func (s *system) ping(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Builder-Version", "1")
	h.Set("Swarm", "inactive")
	h.Set("Cache-Control", "no-cache, no-store, must-revalidate")
	h.Set("Pragma", "no-cache")
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		h.Set("Content-Length", "0")
		return nil
	}
	_, err := w.Write([]byte("OK"))
	if err != nil {
		return errStreamed
	}
	return nil
}
