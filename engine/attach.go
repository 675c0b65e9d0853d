package engine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	eventsapi "github.com/moby/moby/api/types/events"

	"github.com/gantryd/gantry/api/stdio"
)

// attachment is a client that was attached before the container's start, or is.
type attachment struct {
	hello stdio.Hello
	conn  chan *stdio.Conn // gives the container's streams once; closed when there will be none
}

// connectTime bounds how long a shim may take to answer an attach.
const connectTime = 10 * time.Second

// postAttach is POST /containers/{id}/attach.
func (c *containers) postAttach(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	keys, err := parseDetachKeys(r.FormValue("detachKeys"))
	if err != nil {
		return err
	}
	rec := k.snapshot()
	if rec.State.Paused {
		return conflict("container %s is paused, unpause the container before attach", k.id)
	}
	if rec.State.Phase == restarting {
		return conflict("container %s is restarting, wait until the container is running", k.id)
	}
	a, err := c.attach(r.Context(), k, helloFor(r, rec))
	if err != nil {
		return err
	}
	h, err := hijack(w, r, rec.Config.Tty)
	if err != nil {
		c.abandon(k, a)
		return err
	}
	defer h.conn.Close()
	c.publish(k, eventsapi.ActionAttach, nil)
	if boolValue(r, "logs") {
		if err := c.replay(h.conn, k, r); err != nil {
			c.cfg.Log.Warn("log before attach", "container", k.id, "err", err)
		}
	}
	if !boolValue(r, "stream") {
		c.abandon(k, a)
		return errStreamed
	}
	if !rec.Config.Tty {
		keys = nil
	}
	if c.serve(r.Context(), k, a, h, keys) {
		c.publish(k, eventsapi.ActionDetach, nil)
	}
	return errStreamed
}

// helloFor says which streams r asks for. With StdinOnce the end of the client's
// input is the end of the container's.
func helloFor(r *http.Request, rec record) stdio.Hello {
	if !boolValue(r, "stream") {
		return stdio.Hello{}
	}
	stdin := boolValue(r, "stdin") && rec.Config.OpenStdin
	return stdio.Hello{
		Stdin: stdin, Stdout: boolValue(r, "stdout"), Stderr: boolValue(r, "stderr"),
		CloseStdin: stdin && rec.Config.StdinOnce && !rec.Config.Tty,
	}
}

// attach joins the streams of k's task, or of its next one if none runs.
func (c *containers) attach(ctx context.Context, k *ctr, hello stdio.Hello) (*attachment, error) {
	a := &attachment{hello: hello, conn: make(chan *stdio.Conn, 1)}
	if hello == (stdio.Hello{}) {
		return a, nil
	}
	k.mu.Lock()
	if k.run == nil || k.run.over() || k.rec.State.Phase != running {
		k.pending = append(k.pending, a)
		k.mu.Unlock()
		return a, nil
	}
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, connectTime)
	defer cancel()
	conn, err := stdio.Dial(ctx, c.attachPath(k.id), hello)
	if err != nil {
		return nil, err
	}
	a.conn <- conn
	return a, nil
}

// connectPending joins the clients that were there before the task, so that they
// get its first byte. One that cannot be joined is let go.
func (c *containers) connectPending(k *ctr, j *journal) {
	k.mu.Lock()
	waiting := k.pending
	k.pending = nil
	k.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	defer j.step("connect attached clients")()
	ctx, cancel := context.WithTimeout(c.life, connectTime)
	defer cancel()
	for _, a := range waiting {
		conn, err := stdio.Dial(ctx, c.attachPath(k.id), a.hello)
		if err != nil {
			c.cfg.Log.Warn("attach", "container", k.id, "err", err)
			close(a.conn)
			continue
		}
		a.conn <- conn
	}
}

// dropPending lets the clients go that wait for a task which will not come.
func (c *containers) dropPending(k *ctr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, a := range k.pending {
		close(a.conn)
	}
	k.pending = nil
}

// abandon ends an attachment that nobody serves.
func (c *containers) abandon(k *ctr, a *attachment) {
	k.mu.Lock()
	for i, p := range k.pending {
		if p == a {
			k.pending = append(k.pending[:i:i], k.pending[i+1:]...)
			break
		}
	}
	k.mu.Unlock()
	select {
	case conn := <-a.conn:
		if conn != nil {
			conn.Close()
		}
	default:
	}
}

// serve copies between the client and the container until the container's output
// ends, or the client goes away or types keys, which it reports.
func (c *containers) serve(ctx context.Context, k *ctr, a *attachment, h *hijacked, keys []byte) (detached bool) {
	client := make(chan error, 1) // why the client's input ended
	var in io.Reader = h.in
	if keys != nil {
		in = &detachReader{r: h.in, keys: keys}
	}
	input, feed := io.Pipe()
	defer input.Close()
	go func() {
		_, err := io.Copy(feed, in)
		feed.CloseWithError(err) // nil is io.EOF
		client <- err
	}()

	conn := c.awaitConn(ctx, a, client)
	if conn == nil {
		c.abandon(k, a)
		return false
	}
	defer conn.Close()
	output := make(chan struct{})
	go func() {
		defer close(output)
		if a.hello.Stdout || a.hello.Stderr {
			io.Copy(h.conn, conn)
			h.closeWrite()
		} else {
			io.Copy(io.Discard, conn)
		}
	}()
	fed := make(chan error, 1)
	go func() {
		if !a.hello.Stdin {
			_, err := io.Copy(io.Discard, input)
			fed <- err
			return
		}
		_, err := io.Copy(conn, input)
		conn.CloseWrite()
		fed <- err
	}()
	for {
		select {
		case <-output:
			return false
		case err := <-fed:
			if errors.Is(err, errDetached) {
				return true
			}
			if err != nil && !a.hello.Stdin {
				return false // the client has gone
			}
			fed = nil // the end of its input is not the end of the client
		case <-ctx.Done():
			return false
		}
	}
}

// awaitConn waits for the container's streams, unless the client goes first.
func (c *containers) awaitConn(ctx context.Context, a *attachment, client <-chan error) *stdio.Conn {
	for {
		select {
		case conn := <-a.conn:
			return conn
		case err := <-client:
			if err != nil {
				return nil
			}
			client = nil // half closed: it still reads
		case <-ctx.Done():
			return nil
		}
	}
}
