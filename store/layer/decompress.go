package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/gantryd/gantry/store/layer/internal/inflate"
)

// windowLimit is how many bytes of memory a zstd frame may ask for.
const windowLimit = 128 << 20

// headSize is how much is read at first; who then reads more at a time has it
// without a copy.
const headSize = 32 << 10

// Compression is the form of a layer.
type Compression string

// The forms that layers have.
const (
	Uncompressed Compression = ""
	Gzip         Compression = "gzip"
	Zstd         Compression = "zstd"
)

// Decompress reads r as gzip or zstd or as it is, told by its first bytes. Close
// does not close r.
func Decompress(r io.Reader) (io.ReadCloser, Compression, error) {
	z, compression, err := open(r)
	if err != nil {
		return nil, compression, err
	}
	return z, compression, nil
}

// decoder is a layer that is being decompressed.
type decoder struct {
	io.ReadCloser
	gzip *inflate.Reader // where it is that
}

// next decompresses as much as goes into buf, and gives the part of it that is new.
func (d *decoder) next(buf *inflate.Buffer) ([]byte, error) {
	if d.gzip != nil {
		return d.gzip.Fill(buf)
	}
	n := 0
	for n < len(buf) {
		m, err := d.Read(buf[n:])
		n += m
		if err != nil {
			return buf[:n], err
		}
	}
	return buf[:n], nil
}

func open(r io.Reader) (*decoder, Compression, error) {
	br := bufio.NewReaderSize(r, headSize)
	head, err := br.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, Uncompressed, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		z, err := inflate.NewReader(br)
		if err != nil {
			return nil, Gzip, fmt.Errorf("read gzip: %w", err)
		}
		return &decoder{io.NopCloser(z), z}, Gzip, nil
	case isZstd(head):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(windowLimit))
		if err != nil {
			return nil, Zstd, fmt.Errorf("read zstd: %w", err)
		}
		return &decoder{z.IOReadCloser(), nil}, Zstd, nil
	}
	return &decoder{io.NopCloser(br), nil}, Uncompressed, nil
}

// isZstd knows a zstd frame and a skippable one (RFC 8878, 3.1).
func isZstd(head []byte) bool {
	return len(head) == 4 && (bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}) ||
		head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}))
}
