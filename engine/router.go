package engine

import (
	"net/http"
	"slices"
	"strings"
)

// router finds the route for a method and a path. It is not http.ServeMux because
// an image's name has slashes and stands in the middle: /images/{name...}/json.
//
// A pattern is literal segments, {x} for one segment, and at most one {x...} for
// one or more. Of several patterns that fit, the one that is literal at the
// earliest segment wins, whatever their order in the table.
type router struct {
	byMethod map[string][]compiled
}

type compiled struct {
	segments []string
	route    route
}

func newRouter(routes []route) *router {
	r := &router{byMethod: map[string][]compiled{}}
	for _, rt := range routes {
		r.byMethod[rt.method] = append(r.byMethod[rt.method],
			compiled{strings.Split(strings.TrimPrefix(rt.pattern, "/"), "/"), rt})
	}
	for _, cs := range r.byMethod {
		slices.SortStableFunc(cs, moreLiteral)
	}
	return r
}

// moreLiteral orders literal segments before {x}, and {x} before {x...}.
func moreLiteral(a, b compiled) int {
	for i := range min(len(a.segments), len(b.segments)) {
		if d := wildness(a.segments[i]) - wildness(b.segments[i]); d != 0 {
			return d
		}
	}
	return len(b.segments) - len(a.segments)
}

func wildness(segment string) int {
	switch {
	case !strings.HasPrefix(segment, "{"):
		return 0
	case strings.HasSuffix(segment, "...}"):
		return 2
	default:
		return 1
	}
}

// find gives the route for r, with the pattern's names set as r's path values.
func (rt *router) find(r *http.Request, path string) (route, bool) {
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for _, c := range rt.byMethod[r.Method] {
		if c.match(segments, func(string, string) {}) {
			c.match(segments, r.SetPathValue)
			return c.route, true
		}
	}
	return route{}, false
}

// match reports whether path fits, and tells set the value of each name.
func (c compiled) match(path []string, set func(name, value string)) bool {
	for i, s := range c.segments {
		name := strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}")
		switch wildness(s) {
		case 2:
			tail := len(c.segments) - i - 1
			n := len(path) - tail
			if n < 1 || strings.Join(path[:n], "/") == "" {
				return false
			}
			set(strings.TrimSuffix(name, "..."), strings.Join(path[:n], "/"))
			path = path[n:]
			continue
		case 1:
			if len(path) == 0 || path[0] == "" {
				return false
			}
			set(name, path[0])
		default:
			if len(path) == 0 || path[0] != s {
				return false
			}
		}
		path = path[1:]
	}
	return len(path) == 0
}
