// Package filter reads containerd's filter syntax, by which a client of its API
// chooses containers, images, blobs, snapshots, leases and events:
//
//	filter   = selector *( "," selector )          all must hold
//	selector = path [ ( "==" / "!=" / "~=" ) value ]
//	path     = field *( "." field )
//	field    = identifier / quoted
//	value    = quoted / anything up to a comma or white space
//	quoted   = "…" with Go's escapes; for a value also /…/ and |…|
//
// A selector without an operator asks whether the field is there; ~= takes a Go
// regular expression. Of several filters one must hold, and none at all holds
// for everything.
package filter

import (
	"regexp"
	"strings"
)

// Fields gives the value at a path of a thing, and whether it has one.
type Fields func(path []string) (value string, present bool)

// Filter is any number of filters, of which one must hold.
type Filter struct {
	any []all
}

type all []selector

type operator uint8

const (
	present operator = iota
	equal
	notEqual
	matches
)

type selector struct {
	path  []string
	op    operator
	value string
	re    *regexp.Regexp // of matches
}

// Match says whether f holds for the thing whose fields are given.
func (f Filter) Match(fields Fields) bool {
	if len(f.any) == 0 {
		return true
	}
	for _, a := range f.any {
		if a.match(fields) {
			return true
		}
	}
	return false
}

// All says whether f holds for everything.
func (f Filter) All() bool { return len(f.any) == 0 }

func (a all) match(fields Fields) bool {
	for _, s := range a {
		if !s.match(fields) {
			return false
		}
	}
	return true
}

func (s selector) match(fields Fields) bool {
	value, ok := fields(s.path)
	switch s.op {
	case equal:
		return ok && value == s.value
	case notEqual:
		return value != s.value
	case matches:
		return s.re.MatchString(value)
	}
	return ok
}

// Labels looks a label up by what follows "labels" in a path: a label's name may
// have dots in it, quoted or not.
func Labels(labels map[string]string, path []string) (string, bool) {
	v, ok := labels[strings.Join(path, ".")]
	return v, ok
}
