package cgroup

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// settingsV2 is r in the files of cgroup v2 (Documentation/admin-guide/cgroup-v2),
// where the specification's words are v1's by the conversions that runtimes share.
func settingsV2(r *specs.LinuxResources) ([]setting, error) {
	var l list
	if err := l.memoryV2(r.Memory); err != nil {
		return nil, err
	}
	if err := l.cpuV2(r.CPU); err != nil {
		return nil, err
	}
	if r.Pids != nil && r.Pids.Limit != nil {
		l.add("pids.limit", "", "pids.max", pidsMax(*r.Pids.Limit))
	}
	l.blockIOV2(r.BlockIO)
	for _, h := range r.HugepageLimits {
		l.add("hugepageLimits", "", "hugetlb."+h.Pagesize+".max", u(h.Limit))
	}
	for dev, v := range r.Rdma {
		l.add("rdma", "", "rdma.max", rdma(dev, v))
	}
	for _, k := range slices.Sorted(maps.Keys(r.Unified)) {
		if strings.ContainsRune(k, '/') {
			return nil, fmt.Errorf("linux.resources.unified: %q is not a file name", k)
		}
		for _, line := range strings.Split(r.Unified[k], "\n") {
			l.add("unified", "", k, line)
		}
	}
	return l, nil
}

func limitV2(v int64) string {
	if v < 0 {
		return "max"
	}
	return i(v)
}

func (l *list) memoryV2(m *specs.LinuxMemory) error {
	if m == nil {
		return nil
	}
	if m.Swap != nil && *m.Swap != 0 || m.Limit != nil && *m.Limit == -1 {
		swap := "max" // which no limit of memory means for swap, too
		switch {
		case m.Swap == nil, *m.Swap == 0, *m.Swap == -1:
		case m.Limit == nil || *m.Limit == 0 || *m.Limit == -1:
			return fmt.Errorf("linux.resources.memory.swap: %d without a memory limit says nothing on cgroup v2", *m.Swap)
		case *m.Swap < *m.Limit:
			return fmt.Errorf("linux.resources.memory.swap: %d is below the memory limit %d, which it includes", *m.Swap, *m.Limit)
		default:
			swap = i(*m.Swap - *m.Limit)
		}
		*l = append(*l, setting{field: "memory.swap", file: "memory.swap.max", value: swap, optional: swap == "max" || swap == "0"})
	}
	if m.Limit != nil && *m.Limit != 0 {
		l.add("memory.limit", "", "memory.max", limitV2(*m.Limit))
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("memory.reservation", "", "memory.low", limitV2(*m.Reservation))
	}
	return nil
}

func (l *list) cpuV2(c *specs.LinuxCPU) error {
	if c == nil {
		return nil
	}
	if c.RealtimePeriod != nil || c.RealtimeRuntime != nil {
		return fmt.Errorf("linux.resources.cpu.realtimeRuntime: cgroup v2 has none")
	}
	if c.Idle != nil {
		l.add("cpu.idle", "", "cpu.idle", i(*c.Idle))
	}
	if c.Shares != nil && *c.Shares != 0 && (c.Idle == nil || *c.Idle == 0) {
		l.add("cpu.shares", "", "cpu.weight", u(CPUWeight(*c.Shares)))
	}
	if (c.Quota != nil && *c.Quota != 0) || (c.Period != nil && *c.Period != 0) {
		value := "max"
		if c.Quota != nil && *c.Quota > 0 {
			value = i(*c.Quota)
		}
		if c.Period != nil && *c.Period != 0 {
			value += " " + u(*c.Period)
		}
		l.add("cpu.quota", "", "cpu.max", value)
	}
	if c.Burst != nil {
		l.add("cpu.burst", "", "cpu.max.burst", u(*c.Burst))
	}
	if c.Cpus != "" {
		l.add("cpu.cpus", "", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		l.add("cpu.mems", "", "cpuset.mems", c.Mems)
	}
	return nil
}

// CPUWeight turns shares, 2 to 262144, into a weight, 1 to 10000, so that the
// defaults of the two, 1024 and 100, meet (the conversion that runc 1.4 and crun
// 1.23 changed to, a parabola in the logarithms).
func CPUWeight(shares uint64) uint64 {
	const least, most = 2, 262144
	l := math.Log2(float64(min(max(shares, least), most)))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34)))
}

func (l *list) blockIOV2(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	if b.Weight != nil && *b.Weight != 0 {
		*l = append(*l, setting{field: "blockIO.weight", file: "io.bfq.weight", value: u(uint64(*b.Weight)), optional: true})
		*l = append(*l, setting{field: "blockIO.weight", file: "io.weight", value: u(IOWeight(uint64(*b.Weight))), optional: true})
	}
	for _, t := range []struct {
		field, key string
		devices    []specs.LinuxThrottleDevice
	}{
		{"throttleReadBpsDevice", "rbps", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "wbps", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "riops", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "wiops", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.devices {
			l.add("blockIO."+t.field, "", "io.max", fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, t.key, d.Rate))
		}
	}
}

// IOWeight turns a v1 weight, 10 to 1000, into a v2 one, 1 to 10000.
func IOWeight(w uint64) uint64 {
	const least, most, most2 = 10, 1000, 10000
	w = min(max(w, least), most)
	return 1 + (w-least)*(most2-1)/(most-least)
}
