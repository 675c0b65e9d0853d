package image

import (
	"io"
	"sync"
)

// pipe passes buffers from one goroutine to the next. There is a fixed number of
// them, which go round:
//
//	writer: buffer → fill → send …  close      reader: Read …  Close      both: recycle
type pipe struct {
	full chan []byte
	free chan []byte
	gone chan struct{} // closed when the reader has stopped
	err  error         // why the writer closed; set before full is closed

	rest  []byte // of the buffer that is being read
	whole []byte
	all   []*[packedSize]byte
}

// kept are buffers for the next pipe, until memory is collected.
var kept = sync.Pool{New: func() any { return new([packedSize]byte) }}

// newPipe makes a pipe with n buffers.
func newPipe(n int) *pipe {
	p := &pipe{full: make(chan []byte, n), free: make(chan []byte, n), gone: make(chan struct{})}
	for range n {
		b := kept.Get().(*[packedSize]byte)
		p.all = append(p.all, b)
		p.free <- b[:]
	}
	return p
}

// recycle gives the buffers away, when neither side uses the pipe any more.
func (p *pipe) recycle() {
	for _, b := range p.all {
		kept.Put(b)
	}
}

// buffer gives the writer a buffer to fill, or false when nobody reads any more.
func (p *pipe) buffer() ([]byte, bool) {
	select {
	case <-p.gone:
		return nil, false
	default:
	}
	select {
	case b := <-p.free:
		return b[:cap(b)], true
	case <-p.gone:
		return nil, false
	}
}

// send hands a buffer on. It never waits: the channel has room for all of them.
func (p *pipe) send(b []byte) { p.full <- b }

// close ends the stream, with io.EOF or with what went wrong.
func (p *pipe) close(err error) {
	p.err = err
	close(p.full)
}

// Read is for the one reader.
func (p *pipe) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.whole != nil {
			p.free <- p.whole
			p.whole = nil
		}
		full, ok := <-p.full
		if !ok {
			return 0, p.err
		}
		p.whole, p.rest = full, full
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Close tells the writer that nobody reads any more.
func (p *pipe) Close() error { close(p.gone); return nil }

// fill reads from r until b is full or r has ended.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}
