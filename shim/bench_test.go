package shim_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/ttrpc"
)

// BenchmarkStart is the time from the exec of `start` to the first answer of the
// shim that it leaves behind, and how much of that is `start` itself.
func BenchmarkStart(b *testing.B) {
	d := newDaemon(b)
	bundle := filepath.Join(d.dir, "b", "bench")
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		b.Fatal(err)
	}
	var inStart time.Duration
	for i := range b.N {
		begin := time.Now()
		cmd := exec.Command(binary, "-namespace", "test", "-address", d.socket(), "-id", fmt.Sprint("bench", i), "start")
		cmd.Dir = bundle
		cmd.Env = append(os.Environ(), "TTRPC_ADDRESS="+d.socket()+".ttrpc")
		out, err := cmd.Output()
		if err != nil {
			b.Fatal(err)
		}
		inStart += time.Since(begin)
		conn, err := net.Dial("unix", strings.TrimPrefix(string(out), "unix://"))
		if err != nil {
			b.Fatal(err)
		}
		c := ttrpc.NewClient(conn)
		task := taskv3.NewTTRPCTaskClient(c)
		r, err := task.Connect(b.Context(), &taskv3.ConnectRequest{ID: "bench"})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		task.Shutdown(b.Context(), &taskv3.ShutdownRequest{})
		c.Close()
		gone(b, int(r.ShimPid))
		b.StartTimer()
	}
	b.ReportMetric(float64(inStart.Microseconds())/float64(b.N), "start-us/op")
}
