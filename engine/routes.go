package engine

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// The versions of the Engine API: the newest that we speak, the oldest that we
// accept (demand: raising the oldest breaks Traefik, GitLab Runner and others).
const (
	apiVersion    = "1.51"
	minAPIVersion = "1.24"
)

// handler answers one request. An error that it returns becomes the answer, so
// it must not have begun to write one, or must return errStreamed.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one row of the API.
type route struct {
	method  string
	pattern string // as net/http.ServeMux has it, without version: "/containers/{id}/json"
	handle  handler
}

// routes is the whole API.
func (e *Engine) routes() []route {
	return nil
}

// mux builds the router; the version prefix was taken off before it is asked.
func (e *Engine) mux() *http.ServeMux {
	m := http.NewServeMux()
	for _, rt := range e.routes() {
		m.HandleFunc(rt.method+" "+rt.pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := rt.handle(w, r); err != nil && err != errStreamed {
				replyError(w, err)
			}
		})
	}
	return m
}

// ServeHTTP takes "/v1.NN" off the path, checks it, and hands over to the router.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	replyError(w, fmt.Errorf("page not found: %w", errdefs.ErrNotFound))
}

// cutVersion splits "/v1.41/info" into "1.41" and "/info"; a path without a
// version speaks apiVersion.
func cutVersion(path string) (version, rest string, err error) {
	if !strings.HasPrefix(path, "/v1.") {
		return apiVersion, path, nil
	}
	version, rest, ok := strings.Cut(path[2:], "/")
	if !ok {
		return "", "", fmt.Errorf("page not found: %w", errdefs.ErrNotFound)
	}
	minor, err := strconv.Atoi(strings.TrimPrefix(version, "1."))
	if err != nil {
		return "", "", fmt.Errorf("API version %q: %w", version, errdefs.ErrInvalidArgument)
	}
	_ = minor
	return version, "/" + rest, nil
}

// replyJSON writes v with the status code.
func replyJSON(w http.ResponseWriter, code int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		return errStreamed
	}
	return nil
}
