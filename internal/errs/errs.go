// Package errs holds the idioms of errors: how a half-made thing is taken
// apart, and how an error says its kind. The kinds are those of
// github.com/containerd/errdefs; each role translates them once, at its joint,
// in its errors.go.
package errs

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/containerd/errdefs"
)

// Undo runs f when a later step failed, and keeps f's own error too. It is
// deferred next to the acquire that it undoes.
func Undo(err *error, f func() error) {
	if *err != nil {
		*err = errors.Join(*err, f())
	}
}

// Because is an error of a kind, which its text does not say: the word of a
// kind ("invalid argument", "permission denied") reads as an errno.
func Because(kind error, format string, args ...any) error {
	return kinded{fmt.Errorf(format, args...), kind}
}

// Disk gives an error of a full disk its kind.
func Disk(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return Because(errdefs.ErrResourceExhausted, "%w", err)
	}
	return err
}

type kinded struct {
	error
	kind error
}

// Unwrap is the cause, and the kind.
func (k kinded) Unwrap() []error { return []error{k.error, k.kind} }
