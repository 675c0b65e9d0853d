package engine

import (
	"net/http"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/plugin"
)

// What the API has and this engine has not, each with the words that stock
// clients understand.

// notSwarmManager refuses what a cluster would do.
func notSwarmManager() error {
	return because(errdefs.ErrUnavailable, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
}

func (s *system) absentRoutes() []route {
	swarm := func(http.ResponseWriter, *http.Request) error { return notSwarmManager() }
	var rows []route
	for _, noun := range []string{"nodes", "services", "tasks", "secrets", "configs", "swarm"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
			rows = append(rows, route{method, "/" + noun, swarm}, route{method, "/" + noun + "/{rest...}", swarm})
		}
	}
	return append(rows,
		route{http.MethodPost, "/swarm/init", s.noSwarm},
		route{http.MethodPost, "/swarm/join", s.noSwarm},
		route{http.MethodGet, "/plugins", s.getPlugins},
		route{http.MethodGet, "/plugins/{name...}/json", s.noPlugin},
		route{http.MethodDelete, "/plugins/{name...}", s.noPlugin},
		route{http.MethodPost, "/plugins/{name...}", s.noPlugin},
		route{http.MethodPost, "/build", s.noBuild},
		route{http.MethodPost, "/build/prune", s.postBuildPrune},
		route{http.MethodPost, "/build/cancel", s.noBuild},
		route{http.MethodPost, "/containers/{id}/checkpoints", s.noCheckpoint},
		route{http.MethodGet, "/containers/{id}/checkpoints", s.noCheckpoint},
	)
}

func (s *system) noSwarm(http.ResponseWriter, *http.Request) error {
	return because(errdefs.ErrNotImplemented, "swarm mode is not served: Gantry is a node, and Kubernetes places work on it")
}

func (s *system) getPlugins(w http.ResponseWriter, _ *http.Request) error {
	return replyJSON(w, http.StatusOK, plugin.ListResponse{})
}

func (s *system) noPlugin(_ http.ResponseWriter, r *http.Request) error {
	return notFound("plugin %q not found", r.PathValue("name"))
}

func (s *system) noBuild(http.ResponseWriter, *http.Request) error {
	return because(errdefs.ErrNotImplemented, "building is not served yet: build with buildah or a buildx container driver, and load or push the result")
}

func (s *system) postBuildPrune(w http.ResponseWriter, _ *http.Request) error {
	return replyJSON(w, http.StatusOK, struct {
		CachesDeleted  []string
		SpaceReclaimed uint64
	}{[]string{}, 0})
}

func (s *system) noCheckpoint(http.ResponseWriter, *http.Request) error {
	return because(errdefs.ErrNotImplemented, "checkpoints are not served")
}
