package ctrd_test

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/engine/internal/ctrd"
)

// late accepts a connection and leaves it alone for a while.
type late struct{ net.Listener }

func (l late) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	time.Sleep(300 * time.Millisecond)
	return c, err
}

type versions struct {
	versionapi.UnimplementedVersionServer
}

func (versions) Version(context.Context, *emptypb.Empty) (*versionapi.VersionResponse, error) {
	return &versionapi.VersionResponse{Version: "late"}, nil
}

func TestADaemonThatIsSlowToGreetIsWaitedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	versionapi.RegisterVersionServer(g, versions{})
	done := make(chan error, 1)
	go func() { done <- g.Serve(late{l}) }()
	c, err := ctrd.Dial(path, "moby")
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Version.Version(t.Context(), &emptypb.Empty{})
	if err != nil || v.Version != "late" {
		t.Errorf("got %v, %v", v, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	g.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
