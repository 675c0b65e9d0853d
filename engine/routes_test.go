package engine

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAVersionIsCutOffThePath(t *testing.T) {
	for _, c := range []struct {
		name, path string
		minor      int
		rest       string
		status     int // 0: it is taken
	}{
		{"a version is taken off", "/v1.41/info", 41, "/info", 0},
		{"no version is the newest", "/info", maxMinor, "/info", 0},
		{"a word that begins with v is no version", "/volumes/x", maxMinor, "/volumes/x", 0},
		{"the oldest is taken", "/v1.24/info", 24, "/info", 0},
		{"one older is refused", "/v1.23/info", 0, "", http.StatusBadRequest},
		{"one newer is refused", "/v1.52/info", 0, "", http.StatusBadRequest},
		{"another major version is refused", "/v2.1/info", 0, "", http.StatusBadRequest},
		{"a version that is no number is refused", "/v1.x/info", 0, "", http.StatusBadRequest},
		{"a version alone leads to the root", "/v1.41", 41, "/", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			minor, rest, err := cutVersion(c.path)
			if c.status != 0 {
				if err == nil || statusOf(err) != c.status {
					t.Fatalf("got %d, %q, %v; want status %d", minor, rest, err, c.status)
				}
				return
			}
			if err != nil || minor != c.minor || rest != c.rest {
				t.Errorf("got %d, %q, %v; want %d, %q", minor, rest, err, c.minor, c.rest)
			}
		})
	}
}

func TestThePathFindsItsRouteWhateverStandsInANameOfAnImage(t *testing.T) {
	said := ""
	say := func(what string) handler {
		return func(_ http.ResponseWriter, r *http.Request) error {
			said = what + " " + r.PathValue("name") + r.PathValue("id")
			return nil
		}
	}
	rt := newRouter([]route{
		{http.MethodGet, "/images/{name...}", say("any")},
		{http.MethodGet, "/images/{name...}/json", say("inspect")},
		{http.MethodGet, "/images/json", say("list")},
		{http.MethodGet, "/images/{name...}/get", say("save")},
		{http.MethodGet, "/containers/{id}/json", say("container")},
	})
	for _, c := range []struct{ name, path, want string }{
		{"the list is no image called json", "/images/json", "list "},
		{"a name", "/images/busybox/json", "inspect busybox"},
		{"a name with slashes and a port", "/images/localhost:5000/a/b:1/json", "inspect localhost:5000/a/b:1"},
		{"a name that ends like a route", "/images/x/json/json", "inspect x/json"},
		{"another route of the same name", "/images/x/get", "save x"},
		{"an ID is one segment", "/containers/abc/json", "container abc"},
		{"an ID is not empty", "/containers//json", ""},
		{"a path too long", "/containers/a/b/json", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			said = ""
			r := httptest.NewRequest(http.MethodGet, c.path, nil)
			if found, ok := rt.find(r, c.path); ok {
				if err := found.handle(nil, r); err != nil {
					t.Fatal(err)
				}
			}
			if said != c.want {
				t.Errorf("got %q, want %q", said, c.want)
			}
		})
	}
	if _, ok := rt.find(httptest.NewRequest(http.MethodPost, "/images/json", nil), "/images/json"); ok {
		t.Error("another method found a route")
	}
}
