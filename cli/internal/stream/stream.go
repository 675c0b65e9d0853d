// Package stream copies a container's output as the engine sends it: raw where
// the container has a terminal, and else in frames that tell stdout from stderr
// (Docker Engine API, "Stream format").
package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/gantryd/gantry/api/stdio"
)

// systemError is the stream number of a frame in which the daemon reports that
// the stream itself failed.
const systemError = 3

// Demux copies frames from r to stdout and stderr until r ends.
func Demux(stdout, stderr io.Writer, r io.Reader) error {
	var head [stdio.FrameHeaderLen]byte
	buf := make([]byte, 32<<10)
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("read frame: %w", err)
		}
		size := int64(binary.BigEndian.Uint32(head[4:]))
		var dst io.Writer
		switch head[0] {
		case stdio.Stdin, stdio.Stdout:
			dst = stdout
		case stdio.Stderr:
			dst = stderr
		case systemError:
			text, err := io.ReadAll(io.LimitReader(r, min(size, 64<<10)))
			return errors.Join(fmt.Errorf("error from daemon in stream: %s", text), err)
		default:
			return fmt.Errorf("read frame: unknown stream %d", head[0])
		}
		if err := copyN(dst, r, size, buf); err != nil {
			return err
		}
	}
}

// copyN copies exactly n bytes with the caller's buffer.
func copyN(dst io.Writer, r io.Reader, n int64, buf []byte) error {
	for n > 0 {
		m, err := io.ReadFull(r, buf[:min(n, int64(len(buf)))])
		if m > 0 {
			if _, werr := dst.Write(buf[:m]); werr != nil {
				return werr
			}
			n -= int64(m)
		}
		if err != nil {
			return fmt.Errorf("read frame: %w", err)
		}
	}
	return nil
}
