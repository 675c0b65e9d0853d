package layer

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/gantryd/gantry/store/layer/internal/inflate"
)

// Stream is the tar of a layer while it is decompressed:
//
//	packed ─▶ decompress ─▶ Read
//	                   └──▶ hash
//
// Decompressing and hashing have a goroutine each, which end with Close; between
// them and the reader a few large buffers go round. One goroutine may read.
type Stream struct {
	digester digest.Digester
	size     int64
	err      error // why pieces ended; set before they are closed

	free         chan *piece
	read, hashed chan *piece
	gone         chan struct{} // closed when nobody reads any more
	running      sync.WaitGroup

	current *piece
	rest    []byte // of current
}

// piece is a buffer that is being read and hashed.
type piece struct {
	buf  inflate.Buffer
	data []byte // of buf
	uses atomic.Int32
}

// ahead is how many pieces a stream has.
const ahead = 4

// pieces are kept for the next stream, until memory is collected.
var pieces = sync.Pool{New: func() any { return new(piece) }}

var errStopped = errors.New("nobody reads any more")

// Open begins to decompress packed, and closes it when there is nothing more to
// be had of it. algorithm must be available.
func Open(packed io.ReadCloser, algorithm digest.Algorithm) *Stream {
	s := &Stream{
		digester: algorithm.Digester(), gone: make(chan struct{}),
		free: make(chan *piece, ahead), read: make(chan *piece, ahead), hashed: make(chan *piece, ahead),
	}
	for range ahead {
		s.free <- pieces.Get().(*piece)
	}
	s.running.Go(func() {
		s.err = s.decompress(packed)
		if err := packed.Close(); s.err == io.EOF && err != nil {
			s.err = err
		}
		close(s.read)
		close(s.hashed)
	})
	s.running.Go(func() {
		for p := range s.hashed {
			s.digester.Hash().Write(p.data)
			s.size += int64(len(p.data))
			s.done(p)
		}
	})
	return s
}

func (s *Stream) decompress(packed io.Reader) error {
	z, _, err := open(packed)
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrDataLoss)
	}
	defer z.Close()
	for {
		var p *piece
		select {
		case p = <-s.free:
		case <-s.gone:
			return errStopped
		}
		p.data, err = z.next(&p.buf)
		p.uses.Store(2)
		s.read <- p // never waits: there is room for all pieces
		s.hashed <- p
		if err == io.EOF {
			return err
		}
		if err != nil {
			return fmt.Errorf("decompress: %w: %w", err, errdefs.ErrDataLoss)
		}
	}
}

// done lets p go round when it has been both read and hashed.
func (s *Stream) done(p *piece) {
	if p.uses.Add(-1) == 0 {
		s.free <- p
	}
}

// Read gives the tar.
func (s *Stream) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.current != nil {
			s.done(s.current)
			s.current = nil
		}
		p, ok := <-s.read
		if !ok {
			return 0, s.err
		}
		s.current, s.rest = p, p.data
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close ends decompressing and waits for it. Its error is that of decompressing,
// as far as that came.
func (s *Stream) Close() error {
	close(s.gone)
	s.running.Wait()
	for p := range s.read {
		s.done(p)
	}
	if s.current != nil {
		s.done(s.current)
	}
	for range ahead {
		pieces.Put(<-s.free)
	}
	if s.err == io.EOF || errors.Is(s.err, errStopped) {
		return nil
	}
	return s.err
}

// Sum is the digest of all that was decompressed, and its size; only after Close.
func (s *Stream) Sum() (digest.Digest, int64) { return s.digester.Digest(), s.size }
