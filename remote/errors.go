package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

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
	text   string        // what the registry said, one line
	after  time.Duration // when it wants to be asked again
}

// patience is how long a registry may ask to be left alone by one that tries again.
const patience = time.Minute

func (e *answerError) Error() string {
	if e.after > patience {
		return fmt.Sprintf("%s; the registry wants to be asked again in %s", e.what(), e.after.Round(time.Second))
	}
	return e.what()
}

func (e *answerError) what() string {
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
	e := &answerError{status: resp.StatusCode, after: retryAfter(resp.Header)}
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

// retryAfter reads the header of that name, seconds or a date (RFC 9110, 10.2.3).
func retryAfter(h http.Header) time.Duration {
	v := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, time.Until(at))
	}
	return 0
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
		return a.after <= patience && (a.status == http.StatusTooManyRequests || a.status >= 500 && a.status != http.StatusNotImplemented)
	}
	return errdefs.IsUnavailable(err)
}
