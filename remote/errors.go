package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/errs"
)

// kindOf gives a status its kind of error; the rest is Unknown.
var kindOf = map[int]error{
	http.StatusUnauthorized:        errdefs.ErrUnauthenticated,
	http.StatusForbidden:           errdefs.ErrPermissionDenied,
	http.StatusNotFound:            errdefs.ErrNotFound,
	http.StatusMethodNotAllowed:    errdefs.ErrNotImplemented,
	http.StatusTooManyRequests:     errdefs.ErrResourceExhausted,
	http.StatusInternalServerError: errdefs.ErrUnavailable,
	http.StatusBadGateway:          errdefs.ErrUnavailable,
	http.StatusServiceUnavailable:  errdefs.ErrUnavailable,
	http.StatusGatewayTimeout:      errdefs.ErrUnavailable,
}

// headText is what a registry would say with a body (distribution-spec, "Error Codes").
var headText = map[int]string{
	http.StatusUnauthorized:    "authentication required",
	http.StatusForbidden:       "requested access to the resource is denied",
	http.StatusNotFound:        "manifest unknown",
	http.StatusTooManyRequests: "too many requests",
}

// answerError is a registry's refusal.
type answerError struct {
	status int
	text   string // what the registry said, one line
}

func (e *answerError) Error() string {
	if e.text == "" {
		return fmt.Sprintf("%d %s", e.status, http.StatusText(e.status))
	}
	return fmt.Sprintf("%s (%d)", e.text, e.status)
}

func (e *answerError) Unwrap() error {
	if kind, ok := kindOf[e.status]; ok {
		return kind
	}
	return errdefs.ErrUnknown
}

// answer reads what a registry says with an error status (distribution-spec,
// "Error Codes"). Only a little of a hostile body is read, and shown.
func answer(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 16<<10))
	var said struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
		Details string `json:"details"` // of token services
		Error   string `json:"error"`
	}
	e := &answerError{status: resp.StatusCode}
	if len(body) == 0 && resp.Request != nil && resp.Request.Method == http.MethodHead {
		e.text = headText[resp.StatusCode] // the answer to HEAD has no body to say it
	}
	if json.Unmarshal(body, &said) != nil {
		return e
	}
	var parts []string
	for _, s := range said.Errors {
		text := s.Message
		if text == "" {
			text = strings.ToLower(strings.ReplaceAll(s.Code, "_", " "))
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 && said.Details+said.Error != "" {
		parts = append(parts, strings.TrimSpace(said.Details+" "+said.Error))
	}
	e.text = printable(strings.Join(parts, "; "))
	return e
}

// printable keeps a stranger's text on one line and short.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if len(s) > 300 {
		s = s[:300] + "…"
	}
	return s
}

// unavailable gives an error of the network its kind; the caller's own
// cancellation stays what it is.
func unavailable(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, errdefs.ErrUnavailable) {
		return err
	}
	return errs.Because(errdefs.ErrUnavailable, "%w", err)
}

// passing says whether trying again may help.
func passing(err error) bool {
	var a *answerError
	if errors.As(err, &a) {
		return a.status == http.StatusTooManyRequests || a.status >= 500 && a.status != http.StatusNotImplemented
	}
	return errdefs.IsUnavailable(err)
}
