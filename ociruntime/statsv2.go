package ociruntime

import (
	"strconv"
	"strings"
	"time"

	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
)

// statsV2 reads the files of cgroup v2 (Documentation/admin-guide/cgroup-v2).
func statsV2(f cgroup.Files) *Stats {
	s := &Stats{CgroupVersion: 2, Hugetlb: map[string]HugetlbStats{}, Rdma: map[string][]RdmaCounter{}}
	s.CPU = cpuV2(f)
	s.CPUSet = CPUSetStats{CPUs: numberList(f.Text("cpuset.cpus.effective")), Mems: numberList(f.Text("cpuset.mems.effective"))}
	s.Memory = memoryV2(f)
	s.Pids = pidsStats(f)
	s.Blkio = blkioV2(f)
	for _, name := range f.Glob("hugetlb.*.current") {
		size := strings.TrimSuffix(strings.TrimPrefix(name, "hugetlb."), ".current")
		if strings.HasSuffix(size, ".rsvd") {
			continue
		}
		s.Hugetlb[size] = HugetlbStats{
			Usage:   f.Number("hugetlb." + size + ".current"),
			Failcnt: f.Numbers("hugetlb." + size + ".events")["max"],
		}
	}
	s.rdma(f)
	return s
}

func cpuV2(f cgroup.Files) CPUStats {
	const microsecond = uint64(time.Microsecond)
	n := f.Numbers("cpu.stat")
	return CPUStats{
		Usage: CPUUsage{
			Total:  n["usage_usec"] * microsecond,
			User:   n["user_usec"] * microsecond,
			Kernel: n["system_usec"] * microsecond,
		},
		Throttling: Throttling{n["nr_periods"], n["nr_throttled"], n["throttled_usec"] * microsecond},
		PSI:        pressure(f, "cpu.pressure"),
	}
}

func memoryV2(f cgroup.Files) MemoryStats {
	s := MemoryStats{Raw: f.Numbers("memory.stat"), PSI: pressure(f, "memory.pressure")}
	events := f.Numbers("memory.events")
	s.OOMKill = events["oom_kill"]
	s.Cache = s.Raw["file"]
	s.Usage = MemoryEntry{
		Limit: f.Number("memory.max"), Usage: f.Number("memory.current"),
		Max: f.Number("memory.peak"), Failcnt: events["max"],
	}
	s.Swap = MemoryEntry{
		Limit: f.Number("memory.swap.max"), Usage: f.Number("memory.swap.current"),
		Max: f.Number("memory.swap.peak"), Failcnt: f.Numbers("memory.swap.events")["max"],
	}
	return s
}

// blkioV2 reads io.stat, in v1's words.
func blkioV2(f cgroup.Files) BlkioStats {
	s := BlkioStats{PSI: pressure(f, "io.pressure")}
	for _, l := range f.Lines("io.stat") {
		major, minor, ok := device(l[0])
		if !ok {
			continue
		}
		for _, kv := range l[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n := cgroup.Number(v)
			switch k {
			case "rbytes":
				s.IoServiceBytesRecursive = append(s.IoServiceBytesRecursive, BlkioEntry{major, minor, "Read", n})
			case "wbytes":
				s.IoServiceBytesRecursive = append(s.IoServiceBytesRecursive, BlkioEntry{major, minor, "Write", n})
			case "rios":
				s.IoServicedRecursive = append(s.IoServicedRecursive, BlkioEntry{major, minor, "Read", n})
			case "wios":
				s.IoServicedRecursive = append(s.IoServicedRecursive, BlkioEntry{major, minor, "Write", n})
			}
		}
	}
	return s
}

// pressure reads pressure stall information, nil where the kernel keeps none.
func pressure(f cgroup.Files, name string) *PSIStats {
	lines := f.Lines(name)
	if len(lines) == 0 {
		return nil
	}
	var s PSIStats
	for _, l := range lines {
		var d PSIData
		for _, kv := range l[1:] {
			k, v, _ := strings.Cut(kv, "=")
			n, _ := strconv.ParseFloat(v, 64)
			switch k {
			case "avg10":
				d.Avg10 = n
			case "avg60":
				d.Avg60 = n
			case "avg300":
				d.Avg300 = n
			case "total":
				d.Total = cgroup.Number(v)
			}
		}
		switch l[0] {
		case "some":
			s.Some = d
		case "full":
			s.Full = d
		}
	}
	return &s
}
