package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/gantryd/gantry/internal/version"
)

// The versions of the Engine API: the newest that we speak, the oldest that we
// accept. Raising the oldest breaks clients that nobody updates.
const (
	apiVersion    = "1.51"
	minAPIVersion = "1.24"

	maxMinor = 51
	minMinor = 24
)

// handler answers one request. An error that it returns becomes the answer, so
// it must not have begun to write one, or must return errStreamed.
type handler func(w http.ResponseWriter, r *http.Request) error

// route is one row of the API.
type route struct {
	method  string
	pattern string // without version, as router has it: "/images/{name...}/json"
	handle  handler
}

// ServeHTTP takes "/v1.NN" off the path, checks it, and hands over to the route.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Api-Version", apiVersion)
	h.Set("Docker-Experimental", "false")
	h.Set("Ostype", "linux")
	h.Set("Server", "Gantry/"+version.Version+" (linux)")

	minor, path, err := cutVersion(r.URL.Path)
	if err != nil {
		replyError(w, err)
		return
	}
	rt, ok := e.router.find(r, path)
	if !ok {
		replyError(w, notFound("page not found"))
		return
	}
	r = r.WithContext(context.WithValue(r.Context(), minorKey{}, minor))
	if err := rt.handle(w, r); err != nil && !errors.Is(err, errStreamed) {
		if statusOf(err) >= http.StatusInternalServerError {
			e.cfg.Log.Error("answer", "method", r.Method, "path", path, "err", err)
		}
		replyError(w, err)
	}
}

// minorKey is the context key of the API version that a request speaks.
type minorKey struct{}

// minor gives NN of the version 1.NN that r speaks; older versions have other
// shapes in some answers.
func minor(r *http.Request) int {
	n, _ := r.Context().Value(minorKey{}).(int)
	return n
}

// cutVersion splits "/v1.41/info" into 41 and "/info"; a path without a version
// speaks the newest.
func cutVersion(path string) (minor int, rest string, err error) {
	v, ok := strings.CutPrefix(path, "/v")
	if !ok || v == "" || v[0] < '0' || v[0] > '9' {
		return maxMinor, path, nil
	}
	v, rest, _ = strings.Cut(v, "/")
	major, small, _ := strings.Cut(v, ".")
	minor, err = strconv.Atoi(small)
	switch {
	case err != nil || major != "1" && major != "0":
		return 0, "", invalid("invalid API version %q: want 1.%d to 1.%d", v, minMinor, maxMinor)
	case major == "0" || minor < minMinor:
		return 0, "", invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, minAPIVersion)
	case minor > maxMinor:
		return 0, "", invalid("client version %s is too new. Maximum supported API version is %s", v, apiVersion)
	}
	return minor, "/" + rest, nil
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

// readJSON reads the one JSON value that is r's body. Fields that we do not know
// are no error: clients are newer than we are.
func readJSON(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	if err := dec.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return invalid("invalid JSON: got EOF while reading request body")
		}
		return invalid("invalid JSON: %w", err)
	}
	if dec.More() {
		return invalid("unexpected content after JSON")
	}
	return nil
}

// boolValue reads a query parameter as Docker does: absent, "", "0", "no",
// "false" and "none" in any case are false, all else is true.
func boolValue(r *http.Request, name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.FormValue(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}
