package inflate

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
)

// Reader reads gzip: one member after the other, as compress/gzip does.
type Reader struct {
	deflate
	size uint32
	sum  uint32
	err  error

	recent []byte  // the end of what was given: what a match may reach
	own    *Buffer // buffer of Read
	rest   []byte  // what Read has yet to give of it
}

// NewReader reads the header of the first member.
func NewReader(src io.Reader) (*Reader, error) {
	z := &Reader{recent: make([]byte, 0, history)}
	z.buf, z.src = new(inBuffer), src
	return z, z.header()
}

// Fill inflates into buf and gives the part of it that is new, io.EOF with or
// after the last. Without an error buf is as good as full.
func (z *Reader) Fill(buf *Buffer) ([]byte, error) {
	if z.err != nil {
		return nil, z.err
	}
	from := history - len(z.recent)
	copy(buf[from:], z.recent)
	w := history
	for z.err == nil && w <= bufSize-slack {
		start := w
		w, z.err = z.fill(buf, from, w)
		z.sum = crc32.Update(z.sum, crc32.IEEETable, buf[start:w])
		z.size += uint32(w - start)
		if z.err == io.EOF {
			if z.err = z.trailer(); z.err == nil {
				from, z.err = w, z.header()
			}
		}
	}
	z.recent = append(z.recent[:0], buf[max(from, w-history):w]...)
	return buf[history:w], z.err
}

// Read gives what Fill gives, by a buffer of its own.
func (z *Reader) Read(p []byte) (int, error) {
	for len(z.rest) == 0 {
		if z.err != nil {
			return 0, z.err
		}
		if z.own == nil {
			z.own = new(Buffer)
		}
		z.rest, _ = z.Fill(z.own)
	}
	n := copy(p, z.rest)
	z.rest = z.rest[n:]
	return n, nil
}

// Flags of a header (RFC 1952, 2.3.1).
const (
	flagHeaderCRC = 1 << 1
	flagExtra     = 1 << 2
	flagName      = 1 << 3
	flagComment   = 1 << 4
)

// header reads the header of the next member, io.EOF if there is none.
func (z *Reader) header() error {
	var head [10]byte
	sum := uint32(0)
	read := func(p []byte) error {
		if err := z.whole(p); err != nil {
			return err
		}
		sum = crc32.Update(sum, crc32.IEEETable, p)
		return nil
	}
	if err := read(head[:1]); err != nil {
		if errors.Is(z.ended, io.EOF) {
			err = io.EOF
		}
		return err
	}
	if err := read(head[1:]); err != nil {
		return err
	}
	if head[0] != 0x1f || head[1] != 0x8b || head[2] != 8 {
		return gzip.ErrHeader
	}
	flags := head[3]
	if flags&flagExtra != 0 {
		if err := read(head[:2]); err != nil {
			return err
		}
		for left := int(binary.LittleEndian.Uint16(head[:])); left > 0; left-- {
			if err := read(head[:1]); err != nil {
				return err
			}
		}
	}
	for _, text := range []byte{flagName, flagComment} {
		if flags&text == 0 {
			continue
		}
		for head[0] = 1; head[0] != 0; {
			if err := read(head[:1]); err != nil {
				return err
			}
		}
	}
	if flags&flagHeaderCRC != 0 {
		want := sum
		if err := read(head[:2]); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(head[:]) != uint16(want) {
			return gzip.ErrHeader
		}
	}
	z.state, z.last, z.sum, z.size = atBlock, false, 0, 0
	return nil
}

// trailer holds what was given against what the member says of it.
func (z *Reader) trailer() error {
	z.align()
	var tail [8]byte
	if err := z.whole(tail[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(tail[:]) != z.sum || binary.LittleEndian.Uint32(tail[4:]) != z.size {
		return gzip.ErrChecksum
	}
	return nil
}
