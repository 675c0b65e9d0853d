package network

import (
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkLife measures what a container's network costs its start and its end:
// a namespace from the pool, a place on the default bridge, one published port.
func BenchmarkLife(b *testing.B) {
	for _, c := range []struct {
		name string
		pool int
	}{{"pool", 2}, {"no pool", -1}} {
		b.Run(c.name, func(b *testing.B) {
			dir := b.TempDir()
			n, err := Open(b.Context(), Config{
				Root: filepath.Join(dir, "root"), State: filepath.Join(dir, "state"), Pool: c.pool,
				Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
			})
			if err != nil {
				b.Fatal(err)
			}
			if err := n.Restore(b.Context(), func(string) bool { return false }); err != nil {
				b.Fatal(err)
			}
			spent := map[string][]time.Duration{}
			step := func(name string, f func() error) {
				begin := time.Now()
				if err := f(); err != nil {
					b.Fatal(err)
				}
				spent[name] = append(spent[name], time.Since(begin))
			}
			b.ResetTimer()
			for i := range b.N {
				b.StopTimer()
				n.reaper.flush()
				for n.pool.lacks() {
					time.Sleep(time.Millisecond)
				}
				b.StartTimer()
				id := fmt.Sprintf("box%d", i)
				step("newsandbox", func() error {
					_, err := n.NewSandbox(b.Context(), id, SandboxOptions{Network: Default})
					return err
				})
				step("join", func() error {
					_, err := n.Join(b.Context(), id, Default, EndpointOptions{})
					return err
				})
				step("publish", func() error {
					_, err := n.Publish(b.Context(), id, []Port{{Proto: "tcp", ContainerPort: 80}})
					return err
				})
				step("release", func() error { return n.Release(b.Context(), id) })
			}
			b.StopTimer()
			for name, d := range spent {
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)/2].Microseconds()), name+"-median-µs")
			}
			if err := n.Erase(b.Context()); err != nil {
				b.Fatal(err)
			}
		})
	}
}
