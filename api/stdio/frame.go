package stdio

import (
	"encoding/binary"
	"fmt"
	"io"
)

// FrameHeader is the header before n bytes of stream.
func FrameHeader(stream byte, n int) [FrameHeaderLen]byte {
	h := [FrameHeaderLen]byte{0: stream}
	binary.BigEndian.PutUint32(h[4:], uint32(n))
	return h
}

// ReadFrameHeader reads a header: the stream and the number of bytes that follow.
// The error at the end of the streams is io.EOF.
func ReadFrameHeader(r io.Reader) (stream byte, n int, err error) {
	var h [FrameHeaderLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return 0, 0, err
	}
	if h[0] > Stderr {
		return 0, 0, fmt.Errorf("read frame header: stream %d", h[0])
	}
	return h[0], int(binary.BigEndian.Uint32(h[4:])), nil
}
