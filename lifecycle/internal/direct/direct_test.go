package direct_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/gantryd/gantry/lifecycle/internal/direct"
)

type text = wrapperspb.StringValue

func say(s string) *text { return wrapperspb.String(s) }

// service has a method for every thing that a handler may do; what it is told
// goes to heard.
type service struct {
	heard chan string
	hangs chan struct{}    // told by each call of Hang
	kept  *structpb.Struct // what a handler may keep and change
}

// call is a unary method by its handler, decoded as generated code does it.
func call(name string, fn func(context.Context, *service, *text) (proto.Message, error)) grpc.MethodDesc {
	return grpc.MethodDesc{MethodName: name, Handler: func(srv any, ctx context.Context, dec func(any) error, in grpc.UnaryServerInterceptor) (any, error) {
		req := new(text)
		if err := dec(req); err != nil {
			return nil, err
		}
		handle := func(ctx context.Context, req any) (any, error) { return fn(ctx, srv.(*service), req.(*text)) }
		return in(ctx, req, &grpc.UnaryServerInfo{Server: srv, FullMethod: "/test.Service/" + name}, handle)
	}}
}

func stream(name string, fn func(*service, grpc.ServerStream) error) grpc.StreamDesc {
	return grpc.StreamDesc{StreamName: name, ClientStreams: true, ServerStreams: true, Handler: func(srv any, s grpc.ServerStream) error {
		return fn(srv.(*service), s)
	}}
}

var desc = grpc.ServiceDesc{
	ServiceName: "test.Service",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		call("Echo", func(_ context.Context, _ *service, r *text) (proto.Message, error) { return r, nil }),
		call("Metadata", func(ctx context.Context, _ *service, r *text) (proto.Message, error) {
			if ctx.Value(clientKey{}) != nil {
				return nil, errors.New("the client's context has come through")
			}
			_ = grpc.SetHeader(ctx, metadata.Pairs("head", "1"))
			_ = grpc.SetTrailer(ctx, metadata.Pairs("trail", "2"))
			return say(strings.Join(metadata.ValueFromIncomingContext(ctx, r.Value), "+")), nil
		}),
		call("Fail", func(_ context.Context, _ *service, r *text) (proto.Message, error) {
			st, err := status.New(codes.NotFound, r.Value).WithDetails(durationpb.New(time.Second))
			if err != nil {
				return nil, err
			}
			return nil, st.Err()
		}),
		call("FailPlainly", func(_ context.Context, _ *service, r *text) (proto.Message, error) {
			return nil, errors.New(r.Value)
		}),
		call("Hang", func(ctx context.Context, s *service, _ *text) (proto.Message, error) {
			s.hangs <- struct{}{}
			<-ctx.Done()
			s.heard <- ctx.Err().Error()
			return nil, ctx.Err()
		}),
		call("Keep", func(_ context.Context, s *service, _ *text) (proto.Message, error) { return s.kept, nil }),
	},
	Streams: []grpc.StreamDesc{
		stream("Echoes", func(_ *service, s grpc.ServerStream) error {
			for {
				m := new(text)
				if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
					s.SetTrailer(metadata.Pairs("trail", "2"))
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(m); err != nil {
					return err
				}
			}
		}),
		stream("HeaderFirst", func(_ *service, s grpc.ServerStream) error {
			if err := s.SendHeader(metadata.Pairs("head", "1")); err != nil {
				return err
			}
			return s.RecvMsg(new(text)) // the header is out before the handler ends
		}),
		stream("FailAfterOne", func(_ *service, s grpc.ServerStream) error {
			if err := s.SendMsg(say("one")); err != nil {
				return err
			}
			return status.Error(codes.DataLoss, "no more")
		}),
		stream("SendForEver", func(v *service, s grpc.ServerStream) error {
			for {
				if err := s.SendMsg(say(strings.Repeat("x", 1<<10))); err != nil {
					v.heard <- status.Code(err).String()
					return err
				}
			}
		}),
		stream("ReceiveForEver", func(v *service, s grpc.ServerStream) error {
			for {
				if err := s.RecvMsg(new(text)); err != nil {
					v.heard <- status.Code(err).String()
					return err
				}
			}
		}),
	},
}

type clientKey struct{}

var both = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// behaviours hold over a socket as they do within the process.
var behaviours = []struct {
	name string
	run  func(*testing.T, grpc.ClientConnInterface, *service)
}{
	{"an answer comes", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		r := say("left over from another call")
		check(t, c.Invoke(t.Context(), "/test.Service/Echo", say("a"), r))
		if r.Value != "a" {
			t.Errorf("got %q", r.Value)
		}
	}},
	{"metadata goes both ways, and nothing else of the context", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		ctx := context.WithValue(metadata.AppendToOutgoingContext(t.Context(), "Key", "a", "key", "b"), clientKey{}, 1)
		var head, trail metadata.MD
		r := new(text)
		check(t, c.Invoke(ctx, "/test.Service/Metadata", say("key"), r, grpc.Header(&head), grpc.Trailer(&trail)))
		if r.Value != "a+b" || head.Get("head")[0] != "1" || trail.Get("trail")[0] != "2" {
			t.Errorf("got %q, %v, %v", r.Value, head, trail)
		}
	}},
	{"an error is a status with its details", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		st := status.Convert(c.Invoke(t.Context(), "/test.Service/Fail", say("no such thing"), new(text)))
		if st.Code() != codes.NotFound || st.Message() != "no such thing" || len(st.Details()) != 1 {
			t.Errorf("got %v", st)
		}
	}},
	{"an error that is no status is Unknown, through the interceptor", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		err := c.Invoke(t.Context(), "/test.Service/FailPlainly", say("broken"), new(text))
		if st := status.Convert(err); st.Code() != codes.Unknown || st.Message() != "intercepted: broken" {
			t.Errorf("got %v", st)
		}
	}},
	{"a method or service that is not there is Unimplemented", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		for _, name := range []string{"/test.Service/None", "/test.None/Echo"} {
			wantCode(t, codes.Unimplemented, c.Invoke(t.Context(), name, say(""), new(text)))
			s, err := c.NewStream(t.Context(), both, name)
			if err == nil { // a socket says it later
				err = s.RecvMsg(new(text))
			}
			wantCode(t, codes.Unimplemented, err)
		}
	}},
	{"a context that has ended calls nobody", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantCode(t, codes.Canceled, c.Invoke(ctx, "/test.Service/Echo", say(""), new(text)))
	}},
	{"a cancelled call ends on both sides", func(t *testing.T, c grpc.ClientConnInterface, s *service) {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-s.hangs
			cancel()
		}()
		wantCode(t, codes.Canceled, c.Invoke(ctx, "/test.Service/Hang", say(""), new(text)))
		s.hears(t, context.Canceled.Error())
	}},
	{"a deadline ends a call on both sides", func(t *testing.T, c grpc.ClientConnInterface, s *service) {
		for wait := 50 * time.Millisecond; len(s.hangs) == 0; wait *= 2 { // until a call is there before its deadline
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			wantCode(t, codes.DeadlineExceeded, c.Invoke(ctx, "/test.Service/Hang", say(""), new(text)))
		}
		s.hears(t, "") // whose clock is first is open
	}},
	{"what the client does with an answer, the service does not see", func(t *testing.T, c grpc.ClientConnInterface, s *service) {
		for range 2 {
			r := new(structpb.Struct)
			check(t, c.Invoke(t.Context(), "/test.Service/Keep", say(""), r))
			if r.Fields["a"].GetStringValue() != "1" {
				t.Errorf("got %v", r)
			}
			r.Fields["a"] = structpb.NewStringValue("changed")
		}
	}},
	{"a stream ends with its messages, its trailer and io.EOF", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		s := open(t, c, t.Context(), "Echoes")
		m := new(text)
		for _, word := range []string{"a", "b", ""} {
			m.Value = word
			check(t, s.SendMsg(m))
			m.Value = "the sender's own"
			got := say("left over")
			check(t, s.RecvMsg(got))
			if got.Value != word {
				t.Errorf("got %q, want %q", got.Value, word)
			}
		}
		check(t, s.CloseSend())
		if err := s.RecvMsg(new(text)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want EOF", err)
		}
		if got := s.Trailer().Get("trail"); len(got) != 1 {
			t.Errorf("trailer %v", s.Trailer())
		}
	}},
	{"messages are kept for who takes them later", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		s := open(t, c, t.Context(), "Echoes")
		const n = 100
		for range n {
			check(t, s.SendMsg(say("word")))
		}
		check(t, s.CloseSend())
		for range n {
			check(t, s.RecvMsg(new(text)))
		}
		if err := s.RecvMsg(new(text)); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want EOF", err)
		}
	}},
	{"a message larger than the window passes", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		s := open(t, c, t.Context(), "Echoes")
		big := strings.Repeat("x", 1<<20)
		check(t, s.SendMsg(say(big)))
		got := new(text)
		check(t, s.RecvMsg(got))
		if got.Value != big {
			t.Errorf("got %d bytes", len(got.Value))
		}
	}},
	{"the header comes before the end", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		s := open(t, c, t.Context(), "HeaderFirst")
		head, err := s.Header()
		check(t, err)
		if head.Get("head")[0] != "1" {
			t.Errorf("header %v", head)
		}
	}},
	{"an error follows the messages before it", func(t *testing.T, c grpc.ClientConnInterface, _ *service) {
		s := open(t, c, t.Context(), "FailAfterOne")
		check(t, s.RecvMsg(new(text)))
		wantCode(t, codes.DataLoss, s.RecvMsg(new(text)))
		// Sooner or later the client is told that nobody takes what it sends.
		for end := time.Now().Add(30 * time.Second); ; {
			err := s.SendMsg(say(""))
			if errors.Is(err, io.EOF) {
				break
			}
			check(t, err)
			if time.Now().After(end) {
				t.Fatal("the stream takes messages after its end")
			}
		}
	}},
	{"a service that sends more than the client takes waits, and is told when it goes", func(t *testing.T, c grpc.ClientConnInterface, v *service) {
		ctx, cancel := context.WithCancel(t.Context())
		s := open(t, c, ctx, "SendForEver")
		check(t, s.RecvMsg(new(text)))
		cancel()
		for { // what was on its way may still come
			if err := s.RecvMsg(new(text)); err != nil {
				wantCode(t, codes.Canceled, err)
				break
			}
		}
		v.hears(t, codes.Canceled.String())
	}},
	{"a service that waits for messages is told when the client goes", func(t *testing.T, c grpc.ClientConnInterface, v *service) {
		ctx, cancel := context.WithCancel(t.Context())
		s := open(t, c, ctx, "ReceiveForEver")
		check(t, s.SendMsg(say("")))
		cancel()
		v.hears(t, codes.Canceled.String())
	}},
}

func TestACallIsTheSameOverASocketAndWithinTheProcess(t *testing.T) {
	for _, b := range behaviours {
		t.Run(b.name, func(t *testing.T) {
			t.Run("socket", func(t *testing.T) {
				s := newService()
				b.run(t, socket(t, s), s)
			})
			t.Run("direct", func(t *testing.T) {
				s, c := newService(), direct.New(unary, streams)
				c.RegisterService(&desc, s)
				b.run(t, c, s)
				c.Close() // and no handler is left
			})
		})
	}
}

func TestAClosedConnectionHasEndedItsCalls(t *testing.T) {
	s, c := newService(), direct.New(unary, streams)
	c.RegisterService(&desc, s)
	calls := make(chan error, 2)
	go func() { calls <- c.Invoke(t.Context(), "/test.Service/Hang", say(""), new(text)) }()
	go func() {
		st, err := c.NewStream(t.Context(), both, "/test.Service/ReceiveForEver")
		if err == nil {
			err = st.RecvMsg(new(text))
		}
		calls <- err
	}()
	c.Close()
	for range 2 {
		wantCode(t, codes.Unavailable, <-calls)
	}
	wantCode(t, codes.Unavailable, c.Invoke(t.Context(), "/test.Service/Echo", say(""), new(text)))
}

func TestACallEndsWithItsContextThoughItsHandlerDoesNot(t *testing.T) {
	hold := make(chan struct{})
	c := direct.New(unary, streams)
	c.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Service", Methods: []grpc.MethodDesc{
		call("Deaf", func(context.Context, *service, *text) (proto.Message, error) { <-hold; return say(""), nil }),
	}}, newService())
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	wantCode(t, codes.Canceled, c.Invoke(ctx, "/test.Service/Deaf", say(""), new(text)))
	close(hold)
	c.Close()
}

func newService() *service {
	return &service{heard: make(chan string, 4), hangs: make(chan struct{}, 4), kept: &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewStringValue("1")}}}
}

// hears waits for what the handler says, any of it where want is empty.
func (s *service) hears(t *testing.T, want string) {
	t.Helper()
	select {
	case got := <-s.heard:
		if want != "" && got != want {
			t.Errorf("the service heard %q, want %q", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Error("the service was not told in 30 s")
	}
}

func unary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	r, err := handle(ctx, req)
	if _, ok := status.FromError(err); !ok {
		return nil, errors.New("intercepted: " + err.Error())
	}
	return r, err
}

func streams(srv any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return handle(srv, s)
}

func socket(t *testing.T, s *service) grpc.ClientConnInterface {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	check(t, err)
	g := grpc.NewServer(grpc.UnaryInterceptor(unary), grpc.StreamInterceptor(streams))
	g.RegisterService(&desc, s)
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	c, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(t, err)
	t.Cleanup(func() {
		check(t, c.Close())
		g.Stop()
		check(t, <-done)
	})
	return c
}

func open(t *testing.T, c grpc.ClientConnInterface, ctx context.Context, name string) grpc.ClientStream {
	t.Helper()
	s, err := c.NewStream(ctx, both, "/test.Service/"+name)
	check(t, err)
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, want codes.Code, err error) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("got %v (%v), want %v", got, err, want)
	}
}
