// Package direct calls gRPC services within one process: a connection whose calls
// are calls, with no socket and nothing marshalled.
//
// Above it stands a client of the generated stubs, below it the services' generated
// handlers. Neither can tell it from a socket: metadata, interceptors, statuses,
// cancellation and the bounds of what a stream buffers are gRPC's, and no message
// is shared between the two sides. It must not know any service.
package direct

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Conn is where services are registered and their clients call. It implements
// grpc.ServiceRegistrar and grpc.ClientConnInterface.
type Conn struct {
	unary  grpc.UnaryServerInterceptor
	stream grpc.StreamServerInterceptor

	services map[string]bool
	methods  map[string]method

	life context.Context // ends with Close, and with it every call
	end  context.CancelFunc

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup
}

// method is one of a service: desc is nil for a call of one message and answer.
type method struct {
	service any
	call    grpc.MethodHandler
	desc    *grpc.StreamDesc
}

// New makes a connection to services whose handlers run in the interceptors.
func New(unary grpc.UnaryServerInterceptor, stream grpc.StreamServerInterceptor) *Conn {
	c := &Conn{unary: unary, stream: stream, services: map[string]bool{}, methods: map[string]method{}}
	c.life, c.end = context.WithCancel(context.Background())
	return c
}

// RegisterService adds a service. All are registered before the first call.
func (c *Conn) RegisterService(desc *grpc.ServiceDesc, impl any) {
	c.services[desc.ServiceName] = true
	prefix := "/" + desc.ServiceName + "/"
	for _, m := range desc.Methods {
		c.methods[prefix+m.MethodName] = method{service: impl, call: m.Handler}
	}
	for i := range desc.Streams {
		c.methods[prefix+desc.Streams[i].StreamName] = method{service: impl, desc: &desc.Streams[i]}
	}
}

// Close ends the calls under way and waits for their handlers. Later calls are
// Unavailable.
func (c *Conn) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.end()
	c.calls.Wait()
}

// begin finds a method and makes the context of its handler; end must be called
// when that has returned.
func (c *Conn) begin(ctx context.Context, name string) (m method, served context.Context, end func(), err error) {
	if err := ctx.Err(); err != nil {
		return m, nil, nil, status.FromContextError(err).Err()
	}
	m, ok := c.methods[name]
	if !ok {
		return m, nil, nil, c.unknown(name)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return m, nil, nil, status.Error(codes.Unavailable, "the services are closed")
	}
	c.calls.Add(1)
	served, cancel := context.WithCancel(incoming{ctx})
	if md, ok := metadata.FromOutgoingContext(ctx); ok {
		served = metadata.NewIncomingContext(served, md)
	}
	stop := context.AfterFunc(c.life, cancel)
	return m, served, func() {
		stop()
		cancel()
		c.calls.Done()
	}, nil
}

// unknown is what a gRPC server says of a method that it has not.
func (c *Conn) unknown(name string) error {
	service, method, _ := strings.Cut(strings.TrimPrefix(name, "/"), "/")
	if !c.services[service] {
		return status.Errorf(codes.Unimplemented, "unknown service %s", service)
	}
	return status.Errorf(codes.Unimplemented, "unknown method %s for service %s", method, service)
}

// incoming is a client's context as the handler sees it: it ends when the client's
// does, and has none of its values.
type incoming struct{ context.Context }

func (incoming) Value(any) any { return nil }

// AfterFunc is how package context learns of the end without a goroutine.
func (i incoming) AfterFunc(f func()) (stop func() bool) { return context.AfterFunc(i.Context, f) }

// Invoke calls a method of one message and one answer. It returns when ctx ends,
// also if the handler does not.
func (c *Conn) Invoke(ctx context.Context, name string, args, reply any, opts ...grpc.CallOption) error {
	m, served, end, err := c.begin(ctx, name)
	if err != nil {
		return err
	}
	if m.call == nil {
		end()
		return status.Errorf(codes.Internal, "%s is a stream", name)
	}
	t := &transport{method: name, sent: make(chan struct{})}
	served = grpc.NewContextWithServerTransportStream(served, t)
	type answer struct {
		msg any
		err error
	}
	taken := make(chan struct{}) // closed when args are no longer read
	answered := make(chan answer, 1)
	go func() {
		defer end()
		take := sync.OnceFunc(func() { close(taken) })
		defer take()
		msg, err := m.call(m.service, served, func(in any) error {
			defer take()
			return merge(in, args)
		}, c.unary)
		answered <- answer{msg, err}
	}()
	select {
	case a := <-answered:
		t.tell(opts)
		if a.err != nil {
			return c.failure(ctx, a.err)
		}
		return merge(reply, a.msg)
	case <-ctx.Done():
		<-taken
		return status.FromContextError(ctx.Err()).Err()
	}
}

// failure is a handler's error as the client sees it: a status, with nothing of
// what was wrapped in it.
func (c *Conn) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if c.life.Err() != nil {
		return status.Error(codes.Unavailable, "the services are closed")
	}
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err)
	}
	return status.FromProto(st.Proto()).Err()
}

// merge copies a message: neither side sees what the other does with its own.
func merge(dst, src any) error {
	to, ok := dst.(proto.Message)
	from, ok2 := src.(proto.Message)
	if !ok || !ok2 {
		return status.Errorf(codes.Internal, "%T and %T: not both messages", dst, src)
	}
	proto.Reset(to)
	proto.Merge(to, from)
	return nil
}

// transport takes the metadata of an answer. It implements
// grpc.ServerTransportStream.
type transport struct {
	method string
	sent   chan struct{} // closed when the header is sent

	mu              sync.Mutex
	isSent          bool
	header, trailer metadata.MD
}

func (t *transport) Method() string { return t.method }

// errSent is what gRPC says of a header that comes too late.
var errSent = errors.New("the header was sent before")

func (t *transport) SetHeader(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.isSent {
		return errSent
	}
	t.header = metadata.Join(t.header, md)
	return nil
}

func (t *transport) SendHeader(md metadata.MD) error {
	if err := t.SetHeader(md); err != nil {
		return err
	}
	t.flush()
	return nil
}

// flush sends the header if it was not.
func (t *transport) flush() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.isSent {
		t.isSent = true
		close(t.sent)
	}
}

func (t *transport) SetTrailer(md metadata.MD) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trailer = metadata.Join(t.trailer, md)
	return nil
}

// tell gives the metadata to the options that ask for it.
func (t *transport) tell(opts []grpc.CallOption) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = t.header.Copy()
		case grpc.TrailerCallOption:
			*o.TrailerAddr = t.trailer.Copy()
		}
	}
}

// NewStream begins a call of many messages. It ends with its handler, or with ctx.
func (c *Conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, name string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	m, served, end, err := c.begin(ctx, name)
	if err != nil {
		return nil, err
	}
	if m.desc == nil {
		end()
		return nil, status.Errorf(codes.Internal, "%s is no stream", name)
	}
	t := &transport{method: name, sent: make(chan struct{})}
	up, down := newPipe(), newPipe()
	server := &serverStream{transport: t, ctx: grpc.NewContextWithServerTransportStream(served, t), in: up, out: down}
	go func() {
		defer end()
		info := &grpc.StreamServerInfo{FullMethod: name, IsClientStream: m.desc.ClientStreams, IsServerStream: m.desc.ServerStreams}
		err := c.stream(m.service, server, info, m.desc.Handler)
		if err == nil {
			err = io.EOF
		} else {
			err = c.failure(ctx, err)
		}
		down.close(err) // before the header, so that who waits for that finds the end
		up.close(io.EOF)
		t.flush()
	}()
	return &clientStream{transport: t, ctx: ctx, opts: opts, one: !desc.ServerStreams, in: down, out: up}, nil
}

// serverStream is the handler's end of a stream.
type serverStream struct {
	*transport
	ctx     context.Context
	in, out *pipe
}

func (s *serverStream) Context() context.Context { return s.ctx }

func (s *serverStream) SetTrailer(md metadata.MD) { _ = s.transport.SetTrailer(md) } // it has no error

func (s *serverStream) SendMsg(m any) error {
	s.flush()
	return s.out.put(s.ctx, m)
}

func (s *serverStream) RecvMsg(m any) error { return s.in.take(s.ctx, m) }

// clientStream is the client's end of a stream.
type clientStream struct {
	*transport
	ctx     context.Context
	opts    []grpc.CallOption
	one     bool // the server sends one message
	in, out *pipe
}

func (s *clientStream) Context() context.Context { return s.ctx }

func (s *clientStream) Header() (metadata.MD, error) {
	select {
	case <-s.sent:
	case <-s.ctx.Done():
		return nil, status.FromContextError(s.ctx.Err()).Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.header.Copy(), nil
}

func (s *clientStream) Trailer() metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trailer.Copy()
}

// SendMsg gives io.EOF where the stream has ended; RecvMsg says why.
func (s *clientStream) SendMsg(m any) error { return s.out.put(s.ctx, m) }

func (s *clientStream) CloseSend() error {
	s.out.close(io.EOF)
	return nil
}

func (s *clientStream) RecvMsg(m any) error {
	err := s.in.take(s.ctx, m)
	if err == nil && s.one {
		// The answer counts only when the call succeeded.
		if err = s.in.end(s.ctx); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil || s.one {
		s.tell(s.opts)
	}
	return err
}

// window is how many bytes of messages a stream keeps for the side that has not
// taken them, as gRPC does; one message it keeps whatever its size.
const window = 64 << 10

// pipe is one direction of a stream: one side puts, the other takes.
type pipe struct {
	changed [2]chan struct{} // for who puts and who takes; capacity 1

	mu    sync.Mutex
	queue []proto.Message
	bytes int
	err   error // what follows the queue; set once
}

const putter, taker = 0, 1

func newPipe() *pipe {
	return &pipe{changed: [2]chan struct{}{make(chan struct{}, 1), make(chan struct{}, 1)}}
}

func (p *pipe) wake(side int) {
	select {
	case p.changed[side] <- struct{}{}:
	default:
	}
}

// close says what follows the messages that were put.
func (p *pipe) close(err error) {
	p.mu.Lock()
	if p.err == nil {
		p.err = err
	}
	p.mu.Unlock()
	p.wake(putter)
	p.wake(taker)
}

// put appends a copy of m when there is room. io.EOF says that nobody takes it.
func (p *pipe) put(ctx context.Context, m any) error {
	msg, ok := m.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "%T is no message", m)
	}
	size := proto.Size(msg)
	for {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		p.mu.Lock()
		if p.err != nil {
			p.mu.Unlock()
			return io.EOF
		}
		if len(p.queue) == 0 || p.bytes+size <= window {
			p.queue, p.bytes = append(p.queue, proto.Clone(msg)), p.bytes+size
			p.mu.Unlock()
			p.wake(taker)
			return nil
		}
		p.mu.Unlock()
		select {
		case <-p.changed[putter]:
		case <-ctx.Done():
		}
	}
}

// take moves the next message into m, or gives what follows the last.
func (p *pipe) take(ctx context.Context, m any) error {
	msg, err := p.next(ctx)
	if err != nil {
		return err
	}
	to, ok := m.(proto.Message)
	if !ok || to.ProtoReflect().Descriptor() != msg.ProtoReflect().Descriptor() {
		return status.Errorf(codes.Internal, "a %T for a %T", msg, m)
	}
	// The copy is nobody else's: what is in it need not be copied again.
	proto.Reset(to)
	msg.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		to.ProtoReflect().Set(f, v)
		return true
	})
	to.ProtoReflect().SetUnknown(msg.ProtoReflect().GetUnknown())
	return nil
}

func (p *pipe) next(ctx context.Context) (proto.Message, error) {
	for {
		if ctx.Err() != nil {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		p.mu.Lock()
		if len(p.queue) > 0 {
			msg := p.queue[0]
			p.queue[0] = nil
			p.queue, p.bytes = p.queue[1:], p.bytes-proto.Size(msg)
			p.mu.Unlock()
			p.wake(putter)
			return msg, nil
		}
		err := p.err
		p.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-p.changed[taker]:
		case <-ctx.Done():
		}
	}
}

// end waits for what follows the last message; another message is an error.
func (p *pipe) end(ctx context.Context) error {
	msg, err := p.next(ctx)
	if err == nil {
		return status.Errorf(codes.Internal, "a second answer %T", msg)
	}
	return err
}

var (
	_ grpc.ClientConnInterface   = (*Conn)(nil)
	_ grpc.ServiceRegistrar      = (*Conn)(nil)
	_ grpc.ServerTransportStream = (*transport)(nil)
	_ grpc.ServerStream          = (*serverStream)(nil)
	_ grpc.ClientStream          = (*clientStream)(nil)
)
