package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// statsInterval is between two readings of one stream.
const statsInterval = time.Second

// getStats is GET /containers/{id}/stats. A container that does not run has
// empty statistics, and its stream goes on in case it is started.
func (c *containers) getStats(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	stream, oneShot := r.FormValue("stream") == "" || boolValue(r, "stream"), boolValue(r, "one-shot")
	if stream && oneShot {
		return invalid("cannot have stream=true and one-shot=true")
	}
	w.Header().Set("Content-Type", "application/json")
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	var before *container.StatsResponse
	for {
		now, err := c.readStats(r.Context(), k)
		if err != nil {
			return err
		}
		if before != nil {
			now.PreRead, now.PreCPUStats = before.Read, before.CPUStats
		}
		// A single reading has something to be compared with, unless it is told not to.
		if stream || oneShot || before != nil || k.live() == nil {
			if enc.Encode(now) != nil {
				return errStreamed
			}
			if !stream {
				return nil
			}
			rc.Flush()
		}
		before = now
		select {
		case <-time.After(statsInterval):
		case <-k.removed:
			return errStreamed
		case <-r.Context().Done():
			return errStreamed
		}
	}
}

// readStats reads everything once.
func (c *containers) readStats(ctx context.Context, k *ctr) (*container.StatsResponse, error) {
	s := &container.StatsResponse{ID: k.id, Name: "/" + k.snapshot().Name, OSType: "linux"}
	life := k.live()
	if life == nil {
		return s, nil
	}
	resp, err := c.ctrd.Tasks.Metrics(ctx, &tasksapi.MetricsRequest{Filters: []string{"id==" + k.id}})
	if err != nil && !errdefs.IsNotFound(err) {
		return nil, fmt.Errorf("read statistics of %s: %w", k.id, err)
	}
	s.Read = time.Now()
	if len(resp.GetMetrics()) == 0 {
		return s, nil // it has just ended
	}
	if err := fillStats(s, resp.Metrics[0].Data); err != nil {
		return nil, err
	}
	s.NumProcs = 0
	s.CPUStats.OnlineCPUs = onlineCPUs()
	if s.CPUStats.SystemUsage, err = systemCPU(); err != nil {
		return nil, err
	}
	if total := memoryTotal(); s.MemoryStats.Limit == 0 || s.MemoryStats.Limit > total {
		s.MemoryStats.Limit = total
	}
	if mode := k.snapshot().HostConfig.NetworkMode; !mode.IsHost() && !mode.IsContainer() {
		s.Networks, err = networkCounters(life.pid)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func onlineCPUs() uint32 {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(1, &set); err != nil {
		return 0
	}
	return uint32(set.Count())
}

// clockTicks is USER_HZ, which is 100 on every architecture of today (time(7)).
const clockTicks = 100

// systemCPU is the time of all CPUs in nanoseconds, idle time included (proc(5),
// the first line of /proc/stat).
func systemCPU() (uint64, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, fmt.Errorf("read CPU time: %w", err)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	// user nice system idle iowait irq softirq steal; guest times are in user.
	const first, last = 1, 9
	if len(fields) < last {
		return 0, fmt.Errorf("read CPU time: /proc/stat begins with %q", line)
	}
	var ticks uint64
	for _, f := range fields[first:last] {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read CPU time: %w", err)
		}
		ticks += n
	}
	return ticks * uint64(time.Second) / clockTicks, nil
}

func memoryTotal() uint64 {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	return info.Totalram * uint64(info.Unit)
}

// networkCounters reads the interfaces in the network namespace of pid (proc(5),
// /proc/PID/net/dev), loopback left out. A process that has ended has none.
func networkCounters(pid int) (map[string]container.NetworkStats, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", pid))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read network counters: %w", err)
	}
	stats := map[string]container.NetworkStats{}
	for line := range strings.Lines(string(data)) {
		name, counters, ok := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(counters)
		if !ok || name == "lo" || len(fields) < 12 {
			continue
		}
		var n [12]uint64
		for i := range n {
			if n[i], err = strconv.ParseUint(fields[i], 10, 64); err != nil {
				return nil, fmt.Errorf("read network counters: %w", err)
			}
		}
		stats[name] = container.NetworkStats{
			RxBytes: n[0], RxPackets: n[1], RxErrors: n[2], RxDropped: n[3],
			TxBytes: n[8], TxPackets: n[9], TxErrors: n[10], TxDropped: n[11],
		}
	}
	return stats, nil
}
