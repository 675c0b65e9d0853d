package ociruntime

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
)

// Stats reads the container's cgroups.
func (c *Container) Stats() (*Stats, error) {
	if _, err := c.must("read the stats of", Creating, Created, Running, Paused, Stopped); err != nil {
		return nil, err
	}
	if c.group.V2Only() {
		return statsV2(c.group.UnifiedFiles()), nil
	}
	return statsV1(c.group), nil
}

// statsV1 reads the files of cgroup v1 (Documentation/admin-guide/cgroup-v1).
func statsV1(g *cgroup.Group) *Stats {
	s := &Stats{CgroupVersion: 1, Hugetlb: map[string]HugetlbStats{}, Rdma: map[string][]RdmaCounter{}}
	s.CPU = cpuV1(g.Files("cpuacct"), g.Files("cpu"))
	cpuset := g.Files("cpuset")
	s.CPUSet = CPUSetStats{CPUs: numberList(cpuset.Text("cpuset.cpus")), Mems: numberList(cpuset.Text("cpuset.mems"))}
	s.Memory = memoryV1(g.Files("memory"))
	s.Pids = pidsStats(g.Files("pids"))
	s.Blkio = blkioV1(g.Files("blkio"))
	hugetlb := g.Files("hugetlb")
	for _, name := range hugetlb.Glob("hugetlb.*.limit_in_bytes") {
		size := strings.TrimSuffix(strings.TrimPrefix(name, "hugetlb."), ".limit_in_bytes")
		if strings.HasSuffix(size, ".rsvd") {
			continue
		}
		s.Hugetlb[size] = HugetlbStats{
			Usage:   hugetlb.Number("hugetlb." + size + ".usage_in_bytes"),
			Max:     hugetlb.Number("hugetlb." + size + ".max_usage_in_bytes"),
			Failcnt: hugetlb.Number("hugetlb." + size + ".failcnt"),
		}
	}
	s.rdma(g.Files("rdma"))
	return s
}

func cpuV1(acct, cpu cgroup.Files) CPUStats {
	const tick = uint64(time.Second) / 100 // USER_HZ
	var s CPUStats
	s.Usage.Total = acct.Number("cpuacct.usage")
	times := acct.Numbers("cpuacct.stat")
	s.Usage.User, s.Usage.Kernel = times["user"]*tick, times["system"]*tick
	for _, line := range acct.Lines("cpuacct.usage_all") {
		if len(line) != 3 || line[0] == "cpu" {
			continue
		}
		user, system := cgroup.Number(line[1]), cgroup.Number(line[2])
		s.Usage.PercpuUser = append(s.Usage.PercpuUser, user)
		s.Usage.PercpuKernel = append(s.Usage.PercpuKernel, system)
	}
	for _, n := range strings.Fields(acct.Text("cpuacct.usage_percpu")) {
		s.Usage.Percpu = append(s.Usage.Percpu, cgroup.Number(n))
	}
	throttled := cpu.Numbers("cpu.stat")
	s.Throttling = Throttling{throttled["nr_periods"], throttled["nr_throttled"], throttled["throttled_time"]}
	return s
}

func memoryV1(f cgroup.Files) MemoryStats {
	entry := func(prefix string) MemoryEntry {
		return MemoryEntry{
			Limit:   unlimitedV1(f.Number(prefix + "limit_in_bytes")),
			Usage:   f.Number(prefix + "usage_in_bytes"),
			Max:     f.Number(prefix + "max_usage_in_bytes"),
			Failcnt: f.Number(prefix + "failcnt"),
		}
	}
	s := MemoryStats{
		Usage: entry("memory."), Swap: entry("memory.memsw."), Kernel: entry("memory.kmem."), KernelTCP: entry("memory.kmem.tcp."),
		Raw: f.Numbers("memory.stat"), OOMKill: f.Numbers("memory.oom_control")["oom_kill"],
	}
	s.Cache = s.Raw["total_cache"]
	return s
}

// unlimitedV1 is a limit, where the greatest number of pages means none.
func unlimitedV1(n uint64) uint64 {
	const most = math.MaxInt64 &^ (64<<10 - 1) // the greatest page is 64 KiB
	if n >= most {
		return math.MaxUint64
	}
	return n
}

func pidsStats(f cgroup.Files) PidsStats {
	s := PidsStats{Current: f.Number("pids.current"), Limit: f.Number("pids.max")}
	if s.Limit == math.MaxUint64 {
		s.Limit = 0
	}
	return s
}

// blkioV1 reads what the I/O scheduler counts, or the throttling layer where it
// counts nothing.
func blkioV1(f cgroup.Files) BlkioStats {
	entries := func(names ...string) []BlkioEntry {
		for _, name := range names {
			if list := blkioEntries(f.Lines(name)); len(list) > 0 {
				return list
			}
		}
		return nil
	}
	return BlkioStats{
		IoServiceBytesRecursive: entries("blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"),
		IoServicedRecursive:     entries("blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"),
		IoQueuedRecursive:       entries("blkio.bfq.io_queued_recursive"),
		IoServiceTimeRecursive:  entries("blkio.bfq.io_service_time_recursive"),
		IoWaitTimeRecursive:     entries("blkio.bfq.io_wait_time_recursive"),
		IoMergedRecursive:       entries("blkio.bfq.io_merged_recursive"),
		IoTimeRecursive:         entries("blkio.bfq.time_recursive"),
		SectorsRecursive:        entries("blkio.bfq.sectors_recursive"),
	}
}

// blkioEntries reads lines of "8:0 Read 4096", "8:0 4096"; the sum is left out.
func blkioEntries(lines [][]string) (list []BlkioEntry) {
	for _, l := range lines {
		major, minor, ok := device(l[0])
		switch {
		case !ok:
		case len(l) == 3:
			list = append(list, BlkioEntry{major, minor, l[1], cgroup.Number(l[2])})
		case len(l) == 2:
			list = append(list, BlkioEntry{major, minor, "", cgroup.Number(l[1])})
		}
	}
	return list
}

func device(s string) (major, minor uint64, ok bool) {
	a, b, ok := strings.Cut(s, ":")
	major, err := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, ok && err == nil && err2 == nil
}

// rdma reads lines of "mlx4_0 hca_handle=2 hca_object=2000".
func (s *Stats) rdma(f cgroup.Files) {
	for _, file := range []string{"current", "max"} {
		for _, l := range f.Lines("rdma." + file) {
			c := RdmaCounter{Device: l[0]}
			for _, kv := range l[1:] {
				k, v, _ := strings.Cut(kv, "=")
				n := uint32(min(cgroup.Number(v), math.MaxUint32))
				switch k {
				case "hca_handle":
					c.Handles = n
				case "hca_object":
					c.Objects = n
				}
			}
			s.Rdma[file] = append(s.Rdma[file], c)
		}
	}
}

// numberList reads a list such as "0-3,8".
func numberList(s string) (list []uint16) {
	for _, part := range strings.Split(s, ",") {
		a, b, isRange := strings.Cut(part, "-")
		first, err := strconv.ParseUint(a, 10, 16)
		if err != nil {
			continue
		}
		last := first
		if isRange {
			if last, err = strconv.ParseUint(b, 10, 16); err != nil {
				continue
			}
		}
		for n := first; n <= last; n++ {
			list = append(list, uint16(n))
		}
	}
	return list
}
