package engine

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/moby/moby/api/types"
)

// hijacked is a client's connection after the answer, both ways raw.
type hijacked struct {
	conn net.Conn
	in   io.Reader // what the client sends, what came with the request included
}

// hijack takes the connection over from HTTP: 101 where the client asked to
// upgrade, else a 200 without length, as clients of old expect.
func hijack(w http.ResponseWriter, r *http.Request, tty bool) (*hijacked, error) {
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("take over the connection: %w", err)
	}
	media := types.MediaTypeRawStream
	if !tty && minor(r) >= 42 {
		media = types.MediaTypeMultiplexedStream
	}
	head := "HTTP/1.1 200 OK\r\nContent-Type: " + media + "\r\n\r\n"
	if proto := r.Header.Get("Upgrade"); proto != "" {
		head = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + media +
			"\r\nConnection: Upgrade\r\nUpgrade: " + proto +
			"\r\nApi-Version: " + apiVersion + "\r\nOstype: linux\r\n\r\n"
	}
	if _, err := io.WriteString(conn, head); err != nil {
		conn.Close()
		return nil, errStreamed
	}
	return &hijacked{conn, early(buf.Reader, conn)}, nil
}

// early reads what the HTTP server had read ahead, and then conn itself.
func early(buf *bufio.Reader, conn net.Conn) io.Reader {
	if n := buf.Buffered(); n > 0 {
		ahead, err := buf.Peek(n)
		if err == nil {
			return io.MultiReader(strings.NewReader(string(ahead)), conn)
		}
	}
	return conn
}

// closeWrite tells the client that nothing more comes; it may go on sending.
func (h *hijacked) closeWrite() {
	if c, ok := h.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}
