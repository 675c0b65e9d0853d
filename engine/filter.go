package engine

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// filters is the parameter of that name of the list, prune and events calls: keys
// with the values that a thing may have. A thing passes when it passes every key.
type filters map[string]map[string]bool

// parseFilters reads r's filters, in today's form {"key":{"value":true}} or that
// of before API 1.22, {"key":["value"]}. Keys that are not among known are refused.
func parseFilters(r *http.Request, known ...string) (filters, error) {
	raw := r.FormValue("filters")
	if raw == "" {
		return nil, nil
	}
	f := filters{}
	if json.Unmarshal([]byte(raw), &f) != nil {
		var old map[string][]string
		if err := json.Unmarshal([]byte(raw), &old); err != nil {
			return nil, invalid("invalid filter: %q: %w", raw, err)
		}
		f = filters{}
		for k, vs := range old {
			f[k] = map[string]bool{}
			for _, v := range vs {
				f[k][v] = true
			}
		}
	}
	for k := range f {
		if !slices.Contains(known, k) {
			return nil, invalid("invalid filter '%s'", k)
		}
	}
	return f, nil
}

// values are what key may be, in no order; none if it was not asked for.
func (f filters) values(key string) []string {
	var vs []string
	for v := range f[key] {
		vs = append(vs, v)
	}
	return vs
}

// has reports whether key was asked for.
func (f filters) has(key string) bool { return len(f[key]) > 0 }

// exact passes v where key was not asked for, or v is among its values.
func (f filters) exact(key, v string) bool {
	return !f.has(key) || f[key][v]
}

// prefix is exact for a v that begins with a value, such as an ID.
func (f filters) prefix(key string, vs ...string) bool {
	return f.anyOf(key, vs, strings.HasPrefix)
}

// pattern is exact for a v that a value matches as a regular expression.
func (f filters) pattern(key string, vs ...string) bool {
	return f.anyOf(key, vs, func(v, want string) bool {
		if v == want {
			return true
		}
		re, err := regexp.Compile(want)
		return err == nil && re.MatchString(v)
	})
}

func (f filters) anyOf(key string, vs []string, fits func(v, want string) bool) bool {
	if !f.has(key) {
		return true
	}
	for want := range f[key] {
		for _, v := range vs {
			if fits(v, want) {
				return true
			}
		}
	}
	return false
}

// labels passes labels that have every value of key, which is "NAME" or
// "NAME=VALUE".
func (f filters) labels(key string, labels map[string]string) bool {
	for want := range f[key] {
		if !hasLabel(labels, want) {
			return false
		}
	}
	return true
}

// notLabels passes labels that have none of key's values, for "label!".
func (f filters) notLabels(key string, labels map[string]string) bool {
	for want := range f[key] {
		if hasLabel(labels, want) {
			return false
		}
	}
	return true
}

func hasLabel(labels map[string]string, want string) bool {
	name, value, withValue := strings.Cut(want, "=")
	v, ok := labels[name]
	return ok && (!withValue || v == value)
}

// truth gives the one truth value of key, or otherwise where it was not asked for.
func (f filters) truth(key string, otherwise bool) (bool, error) {
	vs := f.values(key)
	if len(vs) == 0 {
		return otherwise, nil
	}
	if len(vs) == 1 {
		switch vs[0] {
		case "1", "true":
			return true, nil
		case "0", "false":
			return false, nil
		}
	}
	return false, invalid("invalid filter '%s=%v'", key, vs)
}
