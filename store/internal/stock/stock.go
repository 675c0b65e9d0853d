// Package stock starts the field's own programs for tests of the stores: a
// containerd with directories of its own, and Debian's docker-registry.
package stock

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// Containerd is a running containerd.
type Containerd struct {
	Conn   *grpc.ClientConn
	Socket string
	Root   string
}

// StartContainerd starts Debian's containerd; it is stopped, and its mounts are
// gone, when the test ends.
func StartContainerd(t *testing.T) *Containerd {
	t.Helper()
	bin, err := exec.LookPath("containerd")
	if err != nil {
		t.Fatal("needs Debian's package containerd")
	}
	dir, err := os.MkdirTemp("", "stock") // short: a socket's path is at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := &Containerd{Socket: filepath.Join(dir, "s"), Root: filepath.Join(dir, "root")}
	config := fmt.Sprintf(`version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = %q
[ttrpc]
  address = %q
`, c.Root, filepath.Join(dir, "state"), c.Socket, c.Socket+".ttrpc")
	file := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, exec.Command(bin, "--config", file, "--log-level", "warn"))
	c.Conn, err = grpc.NewClient("unix:"+c.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Conn.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for s := c.Conn.GetState(); s != connectivity.Ready; s = c.Conn.GetState() {
		c.Conn.ResetConnectBackoff()
		c.Conn.Connect()
		if !c.Conn.WaitForStateChange(ctx, s) {
			t.Fatal("containerd did not come up")
		}
		if s == connectivity.TransientFailure {
			time.Sleep(20 * time.Millisecond)
		}
	}
	return c
}

// Context is the test's context for a containerd namespace of its own.
func Context(t *testing.T) context.Context {
	namespace := "test-" + digest.FromString(t.Name()).Encoded()[:16]
	return metadata.AppendToOutgoingContext(t.Context(), "containerd-namespace", namespace)
}

// start starts cmd and stops it when the test ends; what it said is logged where
// the test failed.
func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Errorf("%s did not stop", cmd.Path)
			_ = cmd.Process.Kill()
			<-done
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd.Path, out.String())
		}
	})
}
