package stdio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is an attached client's end: what is read is frames (raw bytes for a
// terminal), what is written is the container's stdin. Reading and writing may
// go on at the same time.
type Conn struct{ file *os.File }

// Dial attaches to the container whose attach socket is at path: when it returns,
// all that the container writes from now on reaches the Conn. ctx bounds the
// handshake only. Where no container listens, the error is fs.ErrNotExist or
// unix.ECONNREFUSED.
func Dial(ctx context.Context, path string, h Hello) (*Conn, error) {
	f, err := connect(path)
	if err != nil {
		return nil, fmt.Errorf("attach to %s: %w", path, err)
	}
	stop := context.AfterFunc(ctx, func() { f.SetDeadline(time.Unix(1, 0)) })
	if err := shake(f, h); err != nil {
		stop()
		f.Close()
		return nil, fmt.Errorf("attach to %s: %w", path, errors.Join(ctx.Err(), err))
	}
	if !stop() {
		f.Close()
		return nil, fmt.Errorf("attach to %s: %w", path, ctx.Err())
	}
	return &Conn{f}, nil
}

// Reopen has the log of the container whose attach socket is at path opened again
// after it was renamed; when it returns, the path is there and every line that
// the container had ended is in the renamed file.
func Reopen(ctx context.Context, path string) error {
	c, err := Dial(ctx, path, Hello{Reopen: true})
	if err != nil {
		return err
	}
	return c.Close()
}

// shake sends h and reads the answer, not one byte more.
func shake(f *os.File, h Hello) error {
	line, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return err
	}
	answer, err := readLine(f)
	if err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	if answer == strings.TrimSuffix(ok, "\n") {
		return nil
	}
	return errors.New(strings.TrimPrefix(answer, errorAnd))
}

// maxHello bounds the lines of the handshake, in bytes.
const maxHello = 4096

// readLine reads up to a newline, byte by byte: what follows belongs to others.
func readLine(r io.Reader) (string, error) {
	var line bytes.Buffer
	var b [1]byte
	for line.Len() < maxHello {
		if _, err := io.ReadFull(r, b[:]); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return line.String(), nil
		}
		line.WriteByte(b[0])
	}
	return "", fmt.Errorf("line is longer than %d bytes", maxHello)
}

// Read reads what the container wrote.
func (c *Conn) Read(p []byte) (int, error) { return c.file.Read(p) }

// Write writes to the container's stdin; it waits while the container does not read.
func (c *Conn) Write(p []byte) (int, error) { return c.file.Write(p) }

// CloseWrite ends this client's stdin (shutdown(2), SHUT_WR); output goes on.
func (c *Conn) CloseWrite() error {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := raw.Control(func(fd uintptr) { serr = unix.Shutdown(int(fd), unix.SHUT_WR) }); err != nil {
		return err
	}
	return serr
}

// SetDeadline bounds reads and writes, as net.Conn does.
func (c *Conn) SetDeadline(t time.Time) error { return c.file.SetDeadline(t) }

// Close detaches. The container goes on.
func (c *Conn) Close() error { return c.file.Close() }

// Welcome is the server's half of the handshake on a connection: it reads the
// client's Hello. The server answers with Accept or Refuse.
func Welcome(conn *os.File) (Hello, error) {
	line, err := readLine(conn)
	if err != nil {
		return Hello{}, fmt.Errorf("read hello: %w", err)
	}
	var h Hello
	if err := json.Unmarshal([]byte(line), &h); err != nil {
		return Hello{}, fmt.Errorf("read hello: %w", err)
	}
	return h, nil
}

// Accept is the server's answer to a Hello that it takes; frames follow.
const Accept = ok

// Refuse is the server's answer to a Hello that it does not take.
func Refuse(err error) string {
	return errorAnd + strings.ReplaceAll(err.Error(), "\n", " ") + "\n"
}
