package ttrpc

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	upstream "github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

const service = "containerd.task.v3.Task"

// serve runs our server; at the end no goroutine of it may be left.
func serve(t *testing.T, h Handler) string {
	t.Helper()
	before := runtime.NumGoroutine()
	path := filepath.Join(t.TempDir(), "s")
	l, err := stdio.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(l, h, nil)
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		s.Close(time.Second)
		if err := <-done; err != nil {
			t.Error(err)
		}
		for range 200 {
			if runtime.NumGoroutine() <= before {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("%d goroutines, before %d", runtime.NumGoroutine(), before)
	})
	return path
}

// dialUpstream connects containerd's own client.
func dialUpstream(t *testing.T, path string) (taskv3.TTRPCTaskService, func()) {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := upstream.NewClient(conn)
	return taskv3.NewTTRPCTaskClient(c), func() { c.Close() }
}

func TestContainerdsClientCallsOurServer(t *testing.T) {
	path := serve(t, func(_ context.Context, c *Call) (wire.Message, error) {
		if c.Service != service {
			t.Errorf("service is %s", c.Service)
		}
		switch c.Method {
		case "Start":
			var r taskapi.ProcessRequest
			if err := wire.Unmarshal(c.Payload, &r); err != nil {
				return nil, err
			}
			return &taskapi.PidResponse{Pid: uint32(len(r.ID))}, nil
		case "Kill":
			return nil, &Status{Code: int32(codes.NotFound), Message: "no such thing"}
		case "Pause":
			return nil, errors.New("surprise")
		}
		return nil, nil
	})
	client, end := dialUpstream(t, path)
	defer end()
	ctx := t.Context()
	long := strings.Repeat("x", 3<<20)
	if r, err := client.Start(ctx, &taskv3.StartRequest{ID: long}); err != nil || r.Pid != uint32(len(long)) {
		t.Errorf("start answers %v, %v", r, err)
	}
	if _, err := client.Kill(ctx, &taskv3.KillRequest{}); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), "no such thing") {
		t.Errorf("kill answers %v", err)
	}
	if _, err := client.Pause(ctx, &taskv3.PauseRequest{}); status.Code(err) != codes.Unknown {
		t.Errorf("pause answers %v", err)
	}
	if _, err := client.Resume(ctx, &taskv3.ResumeRequest{}); err != nil {
		t.Errorf("resume answers %v", err)
	}
}

func TestManyCallsAtOnceOnOneConnection(t *testing.T) {
	release := make(chan struct{})
	path := serve(t, func(ctx context.Context, c *Call) (wire.Message, error) {
		if c.Method == "Wait" {
			select {
			case <-release:
			case <-ctx.Done():
			}
		}
		var r taskapi.ProcessRequest
		if err := wire.Unmarshal(c.Payload, &r); err != nil {
			return nil, err
		}
		return &taskapi.WaitResponse{ExitStatus: uint32(len(r.ID))}, nil
	})
	client, end := dialUpstream(t, path)
	defer end()
	var work sync.WaitGroup
	for i := range 100 {
		work.Go(func() {
			r, err := client.Wait(t.Context(), &taskv3.WaitRequest{ID: strings.Repeat("x", i)})
			if err != nil || r.ExitStatus != uint32(i) {
				t.Errorf("wait %d answers %v, %v", i, r, err)
			}
		})
	}
	if _, err := client.Resume(t.Context(), &taskv3.ResumeRequest{}); err != nil {
		t.Errorf("while others wait: %v", err)
	}
	close(release)
	work.Wait()
}

func TestACallEndsWithItsTimeAndWithItsConnection(t *testing.T) {
	ended := make(chan error, 2)
	path := serve(t, func(ctx context.Context, _ *Call) (wire.Message, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, nil
	})
	client, end := dialUpstream(t, path)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	client.Wait(ctx, &taskv3.WaitRequest{})
	if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the server's call ended with %v", err)
	}
	go client.Wait(t.Context(), &taskv3.WaitRequest{})
	time.Sleep(20 * time.Millisecond)
	end()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the server's call ended with %v", err)
	}
}

func TestOurClientCallsContainerdsServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := upstream.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	taskv3.RegisterTTRPCTaskService(s, upstreamTask{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Serve(context.Background(), l)
	}()
	defer func() { s.Close(); <-done }()
	c, err := Dial("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		var r taskapi.PidResponse
		if err := c.Call(service, "Start", &taskapi.ProcessRequest{ID: "four"}, &r, time.Minute); err != nil || r.Pid != 4 {
			t.Errorf("start answers %+v, %v", r, err)
		}
		var st *Status
		err := c.Call(service, "Kill", &taskapi.KillRequest{}, &taskapi.Empty{}, time.Minute)
		if !errors.As(err, &st) || st.Code != int32(codes.Unimplemented) {
			t.Errorf("kill answers %v", err)
		}
	}
	err = c.Call(service, "Wait", &taskapi.ProcessRequest{}, &taskapi.WaitResponse{}, 50*time.Millisecond)
	// The server knows the deadline too, and may be the first to say so.
	var st *Status
	if !errors.Is(err, os.ErrDeadlineExceeded) && !(errors.As(err, &st) && st.Code == int32(codes.DeadlineExceeded)) {
		t.Errorf("a server that hangs: %v", err)
	}
}

type upstreamTask struct{ taskv3.TTRPCTaskService }

func (upstreamTask) Start(_ context.Context, r *taskv3.StartRequest) (*taskv3.StartResponse, error) {
	return &taskv3.StartResponse{Pid: uint32(len(r.ID))}, nil
}

func (upstreamTask) Kill(context.Context, *taskv3.KillRequest) (*emptypb.Empty, error) {
	return nil, status.Error(codes.Unimplemented, "not here")
}

func (upstreamTask) Wait(ctx context.Context, _ *taskv3.WaitRequest) (*taskv3.WaitResponse, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestHostileFramesEndTheirConnectionOnly(t *testing.T) {
	path := serve(t, func(context.Context, *Call) (wire.Message, error) { return nil, nil })
	for _, row := range []struct{ name, bytes string }{
		{"a frame of 4 GB", "\xff\xff\xff\xff\x00\x00\x00\x01\x01\x00"},
		{"a frame that is cut", "\x00\x00\x00\x09\x00\x00\x00\x01\x01\x00abc"},
		{"a header that is cut", "\x00\x00"},
		{"a request that is none", "\x00\x00\x00\x02\x00\x00\x00\x01\x01\x00\x0a\xff"},
	} {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte(row.bytes))
		conn.(*net.UnixConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(60 * time.Second))
		buf := make([]byte, 4096)
		for err == nil {
			_, err = conn.Read(buf)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the connection stays", row.name)
		}
		conn.Close()
	}
	client, end := dialUpstream(t, path)
	defer end()
	if _, err := client.Resume(t.Context(), &taskv3.ResumeRequest{}); err != nil {
		t.Error(err)
	}
}
