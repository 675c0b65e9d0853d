// Package errs holds the one idiom by which a half-made thing is taken apart.
// The kinds of error are those of github.com/containerd/errdefs; each role
// translates them once, at its joint, in its errors.go.
package errs

import "errors"

// Undo runs f when a later step failed, and keeps f's own error too. It is
// deferred next to the acquire that it undoes.
func Undo(err *error, f func() error) {
	if *err != nil {
		*err = errors.Join(*err, f())
	}
}
