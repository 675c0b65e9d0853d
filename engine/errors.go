package engine

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"
)

// status is the one table from kinds of error to HTTP status codes, in the words
// of the Docker Engine API. What is not named is an internal error.
var status = []struct {
	is   func(error) bool
	code int
}{
	{errdefs.IsNotFound, http.StatusNotFound},
	{errdefs.IsInvalidArgument, http.StatusBadRequest},
	{errdefs.IsConflict, http.StatusConflict},
	{errdefs.IsAlreadyExists, http.StatusConflict},
	{errdefs.IsFailedPrecondition, http.StatusConflict},
	{errdefs.IsNotModified, http.StatusNotModified},
	{errdefs.IsUnauthorized, http.StatusUnauthorized},
	{errdefs.IsPermissionDenied, http.StatusForbidden},
	{errdefs.IsUnavailable, http.StatusServiceUnavailable},
	{errdefs.IsNotImplemented, http.StatusNotImplemented},
}

// statusOf gives the HTTP status of err.
func statusOf(err error) int {
	for _, s := range status {
		if s.is(err) {
			return s.code
		}
	}
	return http.StatusInternalServerError
}

// replyError writes err as the API does: {"message": "…"}.
func replyError(w http.ResponseWriter, err error) {
	code := statusOf(err)
	if code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]string{"message": plainText(err)})
}

// plainText is the text of err on one line, without the kind that errors from below
// end in: the status code says it.
func plainText(err error) string {
	text := strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
	for _, kind := range []error{
		errdefs.ErrNotFound, errdefs.ErrInvalidArgument, errdefs.ErrConflict, errdefs.ErrAlreadyExists,
		errdefs.ErrFailedPrecondition, errdefs.ErrPermissionDenied, errdefs.ErrUnavailable, errdefs.ErrResourceExhausted, errdefs.ErrUnknown,
	} {
		// "permission denied" may also be what the kernel said.
		if !errors.Is(err, kind) {
			continue
		}
		// What came over gRPC has its kind on a line of its own.
		for cut := true; cut; {
			text, cut = strings.CutSuffix(text, "; "+kind.Error())
		}
		if cut, ok := strings.CutSuffix(text, ": "+kind.Error()); ok {
			return cut
		}
	}
	return text
}

// errStreamed says that the answer has begun and that the error is already in it.
var errStreamed = errors.New("answer already begun")

// kinded is an error in the API's own words, with a kind that the words need not
// repeat: clients show and match the stock texts. The kind replaces that of the
// cause.
type kinded struct {
	error
	kind error
}

func (k kinded) Unwrap() error { return k.kind }

// because gives a message in the stock words the kind of errdefs that makes its
// status code.
func because(kind error, format string, args ...any) error {
	return kinded{fmt.Errorf(format, args...), kind}
}

// The kinds that are made most.
func invalid(format string, args ...any) error {
	return because(errdefs.ErrInvalidArgument, format, args...)
}

func notFound(format string, args ...any) error {
	return because(errdefs.ErrNotFound, format, args...)
}

func conflict(format string, args ...any) error {
	return because(errdefs.ErrConflict, format, args...)
}
