package inflate

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"testing"

	klauspost "github.com/klauspost/compress/gzip"
)

// BenchmarkInflate reads this very program, compressed by Go's fastest level and
// by the usual one; in GZ may stand another file, which is compressed already.
func BenchmarkInflate(b *testing.B) {
	inputs := map[string][]byte{}
	if file := os.Getenv("GZ"); file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			b.Fatal(err)
		}
		inputs["GZ"] = data
	} else {
		self, err := os.Executable()
		if err != nil {
			b.Fatal(err)
		}
		data, err := os.ReadFile(self)
		if err != nil {
			b.Fatal(err)
		}
		inputs["level 1"], inputs["level 6"] = zip(b, 1, gzip.Header{}, data), zip(b, 6, gzip.Header{}, data)
	}
	for name, data := range inputs {
		for _, c := range []struct {
			name string
			read func(io.Reader) (int64, error)
		}{{"ours", discardOurs}, {"klauspost", discard(klauspost.NewReader)}, {"standard", discard(gzip.NewReader)}} {
			b.Run(name+"/"+c.name, func(b *testing.B) {
				for b.Loop() {
					n, err := c.read(bytes.NewReader(data))
					if err != nil {
						b.Fatal(err)
					}
					b.SetBytes(n)
				}
			})
		}
	}
}

func discardOurs(r io.Reader) (n int64, err error) {
	z, err := NewReader(r)
	for buf := new(Buffer); err == nil; {
		var p []byte
		p, err = z.Fill(buf)
		n += int64(len(p))
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func discard[R io.Reader](open func(io.Reader) (R, error)) func(io.Reader) (int64, error) {
	return func(r io.Reader) (int64, error) {
		z, err := open(r)
		if err != nil {
			return 0, err
		}
		return io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{z}, make([]byte, 256<<10))
	}
}
