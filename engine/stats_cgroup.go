package engine

import (
	"fmt"
	"strings"
	"time"

	cgroup1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	cgroup2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/moby/moby/api/types/container"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// fillStats translates the metrics of a task, of either version of cgroups.
func fillStats(s *container.StatsResponse, data *anypb.Any) error {
	switch {
	case strings.HasSuffix(data.GetTypeUrl(), "io.containerd.cgroups.v1.Metrics"):
		var m cgroup1.Metrics
		if err := proto.Unmarshal(data.Value, &m); err != nil {
			return fmt.Errorf("read metrics: %w", err)
		}
		fillV1(s, &m)
	case strings.HasSuffix(data.GetTypeUrl(), "io.containerd.cgroups.v2.Metrics"):
		var m cgroup2.Metrics
		if err := proto.Unmarshal(data.Value, &m); err != nil {
			return fmt.Errorf("read metrics: %w", err)
		}
		fillV2(s, &m)
	default:
		return fmt.Errorf("read metrics: type %q is not known", data.GetTypeUrl())
	}
	return nil
}

func fillV1(s *container.StatsResponse, m *cgroup1.Metrics) {
	s.PidsStats = container.PidsStats{Current: m.GetPids().GetCurrent(), Limit: m.GetPids().GetLimit()}
	usage, throttle := m.GetCPU().GetUsage(), m.GetCPU().GetThrottling()
	s.CPUStats.CPUUsage = container.CPUUsage{
		TotalUsage: usage.GetTotal(), PercpuUsage: usage.GetPerCPU(),
		UsageInKernelmode: usage.GetKernel(), UsageInUsermode: usage.GetUser(),
	}
	s.CPUStats.ThrottlingData = container.ThrottlingData{
		Periods: throttle.GetPeriods(), ThrottledPeriods: throttle.GetThrottledPeriods(), ThrottledTime: throttle.GetThrottledTime(),
	}
	if mem := m.GetMemory(); mem != nil {
		s.MemoryStats = container.MemoryStats{
			Usage: mem.GetUsage().GetUsage(), MaxUsage: mem.GetUsage().GetMax(),
			Failcnt: mem.GetUsage().GetFailcnt(), Limit: mem.GetUsage().GetLimit(), Stats: memoryV1(mem),
		}
	}
	if io := m.GetBlkio(); io != nil {
		s.BlkioStats = container.BlkioStats{
			IoServiceBytesRecursive: entriesV1(io.IoServiceBytesRecursive), IoServicedRecursive: entriesV1(io.IoServicedRecursive),
			IoQueuedRecursive: entriesV1(io.IoQueuedRecursive), IoServiceTimeRecursive: entriesV1(io.IoServiceTimeRecursive),
			IoWaitTimeRecursive: entriesV1(io.IoWaitTimeRecursive), IoMergedRecursive: entriesV1(io.IoMergedRecursive),
			IoTimeRecursive: entriesV1(io.IoTimeRecursive), SectorsRecursive: entriesV1(io.SectorsRecursive),
		}
	}
}

func entriesV1(from []*cgroup1.BlkIOEntry) []container.BlkioStatEntry {
	es := []container.BlkioStatEntry{}
	for _, e := range from {
		es = append(es, container.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: e.Op, Value: e.Value})
	}
	return es
}

// memoryV1 has the names of the files of memory.stat.
func memoryV1(m *cgroup1.MemoryStat) map[string]uint64 {
	return map[string]uint64{
		"cache": m.Cache, "rss": m.RSS, "rss_huge": m.RSSHuge, "mapped_file": m.MappedFile, "dirty": m.Dirty,
		"writeback": m.Writeback, "pgpgin": m.PgPgIn, "pgpgout": m.PgPgOut, "pgfault": m.PgFault, "pgmajfault": m.PgMajFault,
		"inactive_anon": m.InactiveAnon, "active_anon": m.ActiveAnon, "inactive_file": m.InactiveFile, "active_file": m.ActiveFile,
		"unevictable": m.Unevictable, "hierarchical_memory_limit": m.HierarchicalMemoryLimit, "hierarchical_memsw_limit": m.HierarchicalSwapLimit,
		"total_cache": m.TotalCache, "total_rss": m.TotalRSS, "total_rss_huge": m.TotalRSSHuge, "total_mapped_file": m.TotalMappedFile,
		"total_dirty": m.TotalDirty, "total_writeback": m.TotalWriteback, "total_pgpgin": m.TotalPgPgIn, "total_pgpgout": m.TotalPgPgOut,
		"total_pgfault": m.TotalPgFault, "total_pgmajfault": m.TotalPgMajFault, "total_inactive_anon": m.TotalInactiveAnon,
		"total_active_anon": m.TotalActiveAnon, "total_inactive_file": m.TotalInactiveFile, "total_active_file": m.TotalActiveFile,
		"total_unevictable": m.TotalUnevictable,
	}
}

func fillV2(s *container.StatsResponse, m *cgroup2.Metrics) {
	s.PidsStats = container.PidsStats{Current: m.GetPids().GetCurrent(), Limit: m.GetPids().GetLimit()}
	if cpu := m.GetCPU(); cpu != nil {
		s.CPUStats.CPUUsage = container.CPUUsage{
			TotalUsage: nanos(cpu.UsageUsec), UsageInKernelmode: nanos(cpu.SystemUsec), UsageInUsermode: nanos(cpu.UserUsec),
		}
		s.CPUStats.ThrottlingData = container.ThrottlingData{
			Periods: cpu.NrPeriods, ThrottledPeriods: cpu.NrThrottled, ThrottledTime: nanos(cpu.ThrottledUsec),
		}
	}
	if mem := m.GetMemory(); mem != nil {
		s.MemoryStats = container.MemoryStats{
			// There is no count of failures any more; out of memory comes nearest.
			Usage: mem.Usage, Limit: mem.UsageLimit, Failcnt: m.GetMemoryEvents().GetOom(), Stats: memoryV2(mem),
		}
	}
	if io := m.GetIo(); io != nil {
		s.BlkioStats.IoServiceBytesRecursive = []container.BlkioStatEntry{}
		for _, e := range io.Usage {
			s.BlkioStats.IoServiceBytesRecursive = append(s.BlkioStats.IoServiceBytesRecursive,
				container.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: "read", Value: e.Rbytes},
				container.BlkioStatEntry{Major: e.Major, Minor: e.Minor, Op: "write", Value: e.Wbytes})
		}
	}
}

func nanos(micros uint64) uint64 { return micros * uint64(time.Microsecond) }

func memoryV2(m *cgroup2.MemoryStat) map[string]uint64 {
	return map[string]uint64{
		"anon": m.Anon, "file": m.File, "kernel_stack": m.KernelStack, "slab": m.Slab, "sock": m.Sock, "shmem": m.Shmem,
		"file_mapped": m.FileMapped, "file_dirty": m.FileDirty, "file_writeback": m.FileWriteback, "anon_thp": m.AnonThp,
		"inactive_anon": m.InactiveAnon, "active_anon": m.ActiveAnon, "inactive_file": m.InactiveFile, "active_file": m.ActiveFile,
		"unevictable": m.Unevictable, "slab_reclaimable": m.SlabReclaimable, "slab_unreclaimable": m.SlabUnreclaimable,
		"pgfault": m.Pgfault, "pgmajfault": m.Pgmajfault, "workingset_refault": m.WorkingsetRefault,
		"workingset_activate": m.WorkingsetActivate, "workingset_nodereclaim": m.WorkingsetNodereclaim,
		"pgrefill": m.Pgrefill, "pgscan": m.Pgscan, "pgsteal": m.Pgsteal, "pgactivate": m.Pgactivate,
		"pgdeactivate": m.Pgdeactivate, "pglazyfree": m.Pglazyfree, "pglazyfreed": m.Pglazyfreed,
		"thp_fault_alloc": m.ThpFaultAlloc, "thp_collapse_alloc": m.ThpCollapseAlloc,
	}
}
