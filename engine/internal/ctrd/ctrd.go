// Package ctrd is the engine's end of the containerd API: one connection, one
// stub per service, and on every call the namespace and errors in errdefs' kinds.
//
// It knows no Docker. Whether lifecycle or a stock containerd answers, over a
// socket or within this process, it cannot tell and must not.
package ctrd

import (
	"context"
	"fmt"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// The metadata keys that containerd reads from every call.
const (
	namespaceKey = "containerd-namespace"
	leaseKey     = "containerd-lease"
)

// A lost connection is dialled again after reconnectBase, and at most every
// reconnectMax: the daemon below restarts in milliseconds.
const (
	reconnectBase = 20 * time.Millisecond
	reconnectMax  = time.Second
	// greetTime is how long a daemon that has accepted may take to greet: without it
	// that is reconnectBase, which a busy machine exceeds.
	greetTime = 20 * time.Second
)

// maxMessage is the largest message in bytes, containerd's own default.
const maxMessage = 16 << 20

// Client is one connection with a stub for each service that the engine calls.
type Client struct {
	// Conn is for stubs made elsewhere: it adds the namespace to every call and
	// leaves gRPC's errors as they are. The stubs below give errdefs' kinds.
	Conn grpc.ClientConnInterface

	close func() error

	Containers    containersapi.ContainersClient
	Tasks         tasksapi.TasksClient
	Snapshots     snapshotsapi.SnapshotsClient
	Content       contentapi.ContentClient
	Images        imagesapi.ImagesClient
	Leases        leasesapi.LeasesClient
	Diff          diffapi.DiffClient
	Events        eventsapi.EventsClient
	Introspection introspectionapi.IntrospectionClient
	Transfer      transferapi.TransferClient
	Streaming     streamingapi.StreamingClient
	Version       versionapi.VersionClient
}

// Dial prepares a connection to the containerd that listens on the unix socket
// address. It does not wait for it: calls do, as long as their context allows.
func Dial(address, namespace string) (*Client, error) {
	conn, err := grpc.NewClient("unix://"+address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: reconnectBase, Multiplier: 1.6, Jitter: 0.2, MaxDelay: reconnectMax},
			MinConnectTimeout: greetTime,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	if err != nil {
		return nil, fmt.Errorf("dial containerd at %s: %w", address, err)
	}
	c := On(conn, namespace)
	c.close = conn.Close
	return c, nil
}

// On makes a client on a connection that is somebody else's.
func On(conn grpc.ClientConnInterface, namespace string) *Client {
	conn = scoped{conn, namespace}
	n := native{conn}
	return &Client{
		Conn:          conn,
		Containers:    containersapi.NewContainersClient(n),
		Tasks:         tasksapi.NewTasksClient(n),
		Snapshots:     snapshotsapi.NewSnapshotsClient(n),
		Content:       contentapi.NewContentClient(n),
		Images:        imagesapi.NewImagesClient(n),
		Leases:        leasesapi.NewLeasesClient(n),
		Diff:          diffapi.NewDiffClient(n),
		Events:        eventsapi.NewEventsClient(n),
		Introspection: introspectionapi.NewIntrospectionClient(n),
		Transfer:      transferapi.NewTransferClient(n),
		Streaming:     streamingapi.NewStreamingClient(n),
		Version:       versionapi.NewVersionClient(n),
		close:         func() error { return nil },
	}
}

// Close ends a connection that was dialled; calls under way fail with Unavailable.
func (c *Client) Close() error { return c.close() }

// WithLease makes the calls under ctx protect what they create by the lease id.
func WithLease(ctx context.Context, id string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, leaseKey, id)
}

// scoped is a connection whose calls are in a namespace.
type scoped struct {
	grpc.ClientConnInterface
	namespace string
}

func (s scoped) Invoke(ctx context.Context, method string, req, reply any, opts ...grpc.CallOption) error {
	return s.ClientConnInterface.Invoke(metadata.AppendToOutgoingContext(ctx, namespaceKey, s.namespace), method, req, reply, opts...)
}

func (s scoped) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return s.ClientConnInterface.NewStream(metadata.AppendToOutgoingContext(ctx, namespaceKey, s.namespace), desc, method, opts...)
}

// native is a connection whose errors have errdefs' kinds.
type native struct{ grpc.ClientConnInterface }

func (n native) Invoke(ctx context.Context, method string, req, reply any, opts ...grpc.CallOption) error {
	return translate(n.ClientConnInterface.Invoke(ctx, method, req, reply, opts...))
}

func (n native) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := n.ClientConnInterface.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, translate(err)
	}
	return nativeStream{s}, nil
}

// nativeStream is the same for a stream; io.EOF passes.
type nativeStream struct{ grpc.ClientStream }

func (s nativeStream) SendMsg(m any) error { return translate(s.ClientStream.SendMsg(m)) }
func (s nativeStream) RecvMsg(m any) error { return translate(s.ClientStream.RecvMsg(m)) }

// translate gives err in errdefs' kinds, where it is a gRPC status.
func translate(err error) error {
	if _, ok := status.FromError(err); err == nil || !ok {
		return err
	}
	return errgrpc.ToNative(err)
}
