package lifecycle

import (
	"context"
	"fmt"
	"io"
	"sync"

	api "github.com/containerd/containerd/api/services/streaming/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
)

// streams is containerd.services.streaming.v1.Streaming: a client opens a stream
// under a name of its own, and names it in another request, which takes it.
//
//	client                                server
//	  │ Stream: StreamInit{id} ─────────────▶│ kept under NAMESPACE, id
//	  │◀──────────────────────────── Empty ──┤
//	  │ Transfer: …stream: id… ─────────────▶│ taken
//	  │◀──────── objects, either way ───────▶│
//	  │◀────────────────── end of stream ────┤ when the request is done
type streams struct {
	api.UnimplementedStreamingServer
	mu   sync.Mutex
	open map[streamKey]*stream
}

type streamKey struct{ ns, id string }

func newStreams() *streams { return &streams{open: map[streamKey]*stream{}} }

// Stream keeps the stream until whoever took it is done with it.
func (s *streams) Stream(srv api.Streaming_StreamServer) error {
	scope, err := scopeOf(srv.Context())
	if err != nil {
		return err
	}
	st := &stream{srv: srv, done: make(chan struct{})}
	first, err := st.recv()
	if err != nil {
		return err
	}
	init, ok := first.(*api.StreamInit)
	if !ok || init.ID == "" {
		return fmt.Errorf("stream begins with %T, want a StreamInit with an ID: %w", first, errdefs.ErrInvalidArgument)
	}
	key := streamKey{scope.Namespace, init.ID}
	if err := s.keep(key, st); err != nil {
		return err
	}
	defer s.drop(key, st)
	if err := st.send(&emptypb.Empty{}); err != nil {
		return err
	}
	select {
	case <-st.done:
	case <-srv.Context().Done():
	}
	return nil
}

func (s *streams) keep(key streamKey, st *stream) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[key] != nil {
		return fmt.Errorf("stream %q: %w", key.id, errdefs.ErrAlreadyExists)
	}
	s.open[key] = st
	return nil
}

func (s *streams) drop(key streamKey, st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[key] == st {
		delete(s.open, key)
	}
}

// take gives the stream to its one user, who closes it.
func (s *streams) take(ns, id string) (*stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := streamKey{ns, id}
	st := s.open[key]
	if st == nil {
		return nil, fmt.Errorf("stream %q: %w", id, errdefs.ErrNotFound)
	}
	delete(s.open, key)
	return st, nil
}

// stream carries objects, marshalled with typeurl.
type stream struct {
	srv  api.Streaming_StreamServer
	done chan struct{}
	once sync.Once
	out  sync.Mutex // one send at a time
}

func (s *stream) send(m proto.Message) error {
	body, err := typeurl.MarshalAnyToProto(m)
	if err != nil {
		return err
	}
	s.out.Lock()
	defer s.out.Unlock()
	select {
	case <-s.done:
		return io.EOF
	default:
	}
	return s.srv.Send(body)
}

func (s *stream) recv() (any, error) {
	body, err := s.srv.Recv()
	if err != nil {
		return nil, err
	}
	return typeurl.UnmarshalAny(body)
}

// close ends the stream for the client.
func (s *stream) close() {
	s.out.Lock()
	defer s.out.Unlock()
	s.once.Do(func() { close(s.done) })
}

// window is how many bytes a sender may be ahead of us.
const window = 1 << 20

// byteReader reads the bytes that a client sends in Data objects. The client sends
// no more than we granted it with WindowUpdate.
type byteReader struct {
	s       *stream
	rest    []byte
	granted int
}

func (r *byteReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.granted <= window/2 {
			if err := r.s.send(&transfertypes.WindowUpdate{Update: window / 2}); err != nil {
				return 0, err
			}
			r.granted += window / 2
			continue
		}
		m, err := r.s.recv()
		if err != nil {
			return 0, err
		}
		d, ok := m.(*transfertypes.Data)
		if !ok {
			return 0, fmt.Errorf("read stream: got %T, want Data: %w", m, errdefs.ErrInvalidArgument)
		}
		r.rest = d.Data
		r.granted -= len(d.Data)
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// byteWriter sends bytes as the client grants them.
type byteWriter struct {
	ctx     context.Context // of the request that writes
	s       *stream
	grants  chan int
	granted int
}

// maxData is how many bytes one Data object has.
const maxData = 32 << 10

func newByteWriter(ctx context.Context, s *stream) *byteWriter {
	w := &byteWriter{ctx: ctx, s: s, grants: make(chan int)}
	go w.receive() // ends with the stream, which the caller closes
	return w
}

func (w *byteWriter) receive() {
	defer close(w.grants)
	for {
		m, err := w.s.recv()
		if err != nil {
			return
		}
		u, ok := m.(*transfertypes.WindowUpdate)
		if !ok {
			continue
		}
		select {
		case w.grants <- int(u.Update):
		case <-w.s.done:
			return
		}
	}
}

func (w *byteWriter) Write(p []byte) (written int, err error) {
	for len(p) > 0 {
		if w.granted == 0 {
			select {
			case n, ok := <-w.grants:
				if !ok {
					return written, fmt.Errorf("write stream: client is gone: %w", io.ErrClosedPipe)
				}
				w.granted = n
			case <-w.ctx.Done():
				return written, context.Cause(w.ctx)
			}
			continue
		}
		n := min(len(p), w.granted, maxData)
		if err := w.s.send(&transfertypes.Data{Data: p[:n]}); err != nil {
			return written, err
		}
		w.granted -= n
		written += n
		p = p[n:]
	}
	return written, nil
}
