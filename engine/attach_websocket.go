package engine

import (
	"encoding/binary"
	"net"
	"net/http"

	eventsapi "github.com/moby/moby/api/types/events"
	"golang.org/x/net/websocket"

	"github.com/gantryd/gantry/api/stdio"
)

// getAttachWebsocket is GET /containers/{id}/attach/ws: attach with the container's
// streams, without frames, in binary messages. Without a word about streams, all
// of them.
func (c *containers) getAttachWebsocket(w http.ResponseWriter, r *http.Request) error {
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
	hello := stdio.Hello{Stdin: boolValue(r, "stdin"), Stdout: boolValue(r, "stdout"), Stderr: boolValue(r, "stderr")}
	if hello == (stdio.Hello{}) {
		hello = stdio.Hello{Stdin: true, Stdout: true, Stderr: true}
	}
	hello.Stdin = hello.Stdin && rec.Config.OpenStdin
	hello.CloseStdin = hello.Stdin && rec.Config.StdinOnce && !rec.Config.Tty
	a, err := c.attach(r.Context(), k, hello)
	if err != nil {
		return err
	}
	served := false
	websocket.Server{Handler: func(ws *websocket.Conn) {
		served = true
		ws.PayloadType = websocket.BinaryFrame
		conn := net.Conn(ws)
		if !rec.Config.Tty {
			keys, conn = nil, &unframed{Conn: ws}
		}
		c.publish(k, eventsapi.ActionAttach, nil)
		if c.serve(r.Context(), k, a, &hijacked{conn, ws}, keys) {
			c.publish(k, eventsapi.ActionDetach, nil)
		}
	}}.ServeHTTP(w, r)
	if !served { // it was no handshake
		c.abandon(k, a)
	}
	return errStreamed
}

// unframed takes the headers out of frames that are written to it.
type unframed struct {
	net.Conn
	header [stdio.FrameHeaderLen]byte
	have   int // bytes of header
	left   int // bytes of the frame that are to come
}

func (u *unframed) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		if u.left == 0 {
			n := copy(u.header[u.have:], p)
			u.have += n
			p = p[n:]
			if u.have == len(u.header) {
				u.have = 0
				u.left = int(binary.BigEndian.Uint32(u.header[4:]))
			}
			continue
		}
		n := min(u.left, len(p))
		if _, err := u.Conn.Write(p[:n]); err != nil {
			return 0, err
		}
		u.left -= n
		p = p[n:]
	}
	return total, nil
}
