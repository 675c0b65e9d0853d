package image

import "io"

// pipe passes buffers from one goroutine to the next. There is a fixed number of
// them, which go round:
//
//	writer: buffer → fill → send …  close      reader: Read …  stop
type pipe struct {
	full chan []byte
	free chan []byte
	gone chan struct{} // closed when the reader has stopped
	err  error         // why the writer closed; set before full is closed

	rest  []byte // of the buffer that is being read
	whole []byte
}

// newPipe makes a pipe with n buffers of size bytes.
func newPipe(n, size int) *pipe {
	p := &pipe{full: make(chan []byte, n), free: make(chan []byte, n), gone: make(chan struct{})}
	for range n {
		p.free <- make([]byte, size)
	}
	return p
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

// next gives what has not been read of the oldest buffer.
func (p *pipe) next() ([]byte, error) {
	for len(p.rest) == 0 {
		if p.whole != nil {
			p.free <- p.whole
			p.whole = nil
		}
		b, ok := <-p.full
		if !ok {
			return nil, p.err
		}
		p.whole, p.rest = b, b
	}
	return p.rest, nil
}

// Read is for the one reader.
func (p *pipe) Read(b []byte) (int, error) {
	have, err := p.next()
	if err != nil {
		return 0, err
	}
	n := copy(b, have)
	p.rest = have[n:]
	return n, nil
}

// stop tells the writer that nobody reads any more.
func (p *pipe) stop() { close(p.gone) }

// fill reads from r until b is full or r has ended.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}
