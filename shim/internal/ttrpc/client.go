package ttrpc

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/wire"
)

// Client makes one call after the other on one connection. It is not for use by
// several goroutines at once.
type Client struct {
	file   *os.File
	r      *bufio.Reader
	stream uint32
}

// Dial connects to the unix socket at address, a path that may begin with "unix://".
func Dial(address string) (*Client, error) {
	path := strings.TrimPrefix(address, "unix://")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	// A unix socket connects at once or says why not; EAGAIN is a full backlog.
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("dial %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	return &Client{file: f, r: bufio.NewReaderSize(f, 512), stream: 1}, nil
}

// Close closes the connection.
func (c *Client) Close() error { return c.file.Close() }

// Call makes one unary call. An error that is a *Status came from the server and
// leaves the connection of use; after any other error it is not.
func (c *Client) Call(service, method string, req, resp wire.Message, timeout time.Duration) error {
	if err := c.call(service, method, req, resp, timeout); err != nil {
		return fmt.Errorf("call %s/%s: %w", service, method, err)
	}
	return nil
}

func (c *Client) call(service, method string, req, resp wire.Message, timeout time.Duration) error {
	if err := c.file.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	stream := c.stream
	c.stream += 2 // PROTOCOL.md: streams that a client begins are odd
	out := appendFrame(nil, stream, typeRequest, &request{
		service: service,
		method:  method,
		payload: wire.Marshal(req),
		timeout: int64(timeout),
	})
	if _, err := c.file.Write(out); err != nil {
		return err
	}
	for {
		f, err := readFrame(c.r)
		if err != nil {
			return err
		}
		if f.typ != typeResponse || f.stream != stream {
			continue
		}
		var r response
		if err := wire.Unmarshal(f.data, &r); err != nil {
			return err
		}
		if r.status != nil && r.status.Code != 0 {
			return r.status
		}
		return wire.Unmarshal(r.payload, resp)
	}
}
