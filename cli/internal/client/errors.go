package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"syscall"
)

// Error is an answer of 400 or more, in the daemon's words.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string {
	return "Error response from daemon: " + e.Message
}

// tooNew reports whether the daemon refused because it is older than the request.
func (e *Error) tooNew() bool {
	return e.Status == http.StatusBadRequest && strings.Contains(e.Message, "is too new")
}

// StatusOf is the HTTP status of an answer that was refused, 0 for another error.
func StatusOf(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status
	}
	return 0
}

// ConnectError says that there is no daemon to talk to.
type ConnectError struct {
	Address string
	Err     error
}

func (e *ConnectError) Error() string {
	hint := "Is gantryd running? Start it, or name another engine with -H or DOCKER_HOST."
	if errors.Is(e.Err, syscall.EACCES) {
		hint = "Run as root, or as a member of the socket's group."
	}
	return fmt.Sprintf("Cannot connect to the engine at %s: %v. %s", e.Address, cause(e.Err), hint)
}

func (e *ConnectError) Unwrap() error { return e.Err }

// cause is the last error of the chain: the address is said already.
func cause(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

// unreachable is the error of a dial.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return &ConnectError{Address: c.Endpoint.Address, Err: err}
}

// lost is the error of a connection that broke before the answer.
func (c *Client) lost(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("the connection was closed before an answer came")
	}
	return fmt.Errorf("talk to the engine at %s: %w", c.Endpoint.Address, err)
}

// readMessage reads the body of an answer of 400 or more: {"message": "…"} from
// an engine, anything from what stands between.
func readMessage(body io.Reader) string {
	raw, err := io.ReadAll(io.LimitReader(body, 1<<20))
	if err != nil {
		return "read the daemon's answer: " + err.Error()
	}
	var m struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &m) == nil && m.Message != "" {
		return strings.TrimSpace(m.Message)
	}
	return strings.TrimSpace(string(raw))
}
