package cgroup

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// missing says that a cgroup file is not there.
func missing(err error) bool { return errors.Is(err, os.ErrNotExist) }

// list collects settings.
type list []setting

func (l *list) add(field, controller, file, value string) {
	*l = append(*l, setting{field: field, controller: controller, file: file, value: value})
}

func u(v uint64) string { return strconv.FormatUint(v, 10) }

func i(v int64) string { return strconv.FormatInt(v, 10) }

// settingsV1 is r in the files of cgroup v1 (Documentation/admin-guide/cgroup-v1).
func settingsV1(r *specs.LinuxResources) ([]setting, error) {
	var l list
	l.memoryV1(r.Memory)
	l.cpuV1(r.CPU)
	if r.Pids != nil && r.Pids.Limit != nil {
		l.add("pids.limit", "pids", "pids.max", pidsMax(*r.Pids.Limit))
	}
	l.blockIOV1(r.BlockIO)
	for _, h := range r.HugepageLimits {
		l.add("hugepageLimits", "hugetlb", "hugetlb."+h.Pagesize+".limit_in_bytes", u(h.Limit))
	}
	if n := r.Network; n != nil {
		if n.ClassID != nil {
			l.add("network.classID", "net_cls", "net_cls.classid", u(uint64(*n.ClassID)))
		}
		for _, p := range n.Priorities {
			l.add("network.priorities", "net_prio", "net_prio.ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	for dev, v := range r.Rdma {
		l.add("rdma", "rdma", "rdma.max", rdma(dev, v))
	}
	if len(r.Unified) > 0 {
		return nil, errors.New("invalid configuration: linux.resources.unified needs cgroup v2, this machine has v1")
	}
	devices, err := devicesV1(r.Devices)
	return append(l, devices...), err
}

// pidsMax is pids.limit. 0 is a limit as well (runtime-spec, config-linux,
// "PIDs"), below the one process that there is: systemd knows none below 1.
func pidsMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return i(max(n, 1))
}

func rdma(dev string, v specs.LinuxRdma) string {
	s := dev
	if v.HcaHandles != nil {
		s += " hca_handle=" + u(uint64(*v.HcaHandles))
	}
	if v.HcaObjects != nil {
		s += " hca_object=" + u(uint64(*v.HcaObjects))
	}
	return s
}

func (l *list) memoryV1(m *specs.LinuxMemory) {
	if m == nil {
		return
	}
	if m.Limit != nil && *m.Limit != 0 {
		l.add("memory.limit", "memory", memoryLimitV1, i(*m.Limit))
	}
	switch unlimited := m.Limit != nil && *m.Limit == -1; {
	case m.Swap != nil && *m.Swap != 0:
		l.add("memory.swap", "memory", swapLimitV1, i(*m.Swap))
	case unlimited: // it may not exceed the limit of both
		*l = append(*l, setting{field: "memory.swap", controller: "memory", file: swapLimitV1, value: "-1", optional: true})
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		l.add("memory.reservation", "memory", "memory.soft_limit_in_bytes", i(*m.Reservation))
	}
	if m.KernelTCP != nil && *m.KernelTCP != 0 {
		l.add("memory.kernelTCP", "memory", "memory.kmem.tcp.limit_in_bytes", i(*m.KernelTCP))
	}
	if m.Swappiness != nil && *m.Swappiness <= 100 {
		l.add("memory.swappiness", "memory", "memory.swappiness", u(*m.Swappiness))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		l.add("memory.disableOOMKiller", "memory", "memory.oom_control", "1")
	}
}

func (l *list) cpuV1(c *specs.LinuxCPU) {
	if c == nil {
		return
	}
	set := func(field, file string, v *uint64) {
		if v != nil && *v != 0 {
			l.add("cpu."+field, "cpu", file, u(*v))
		}
	}
	set("shares", "cpu.shares", c.Shares)
	set("period", "cpu.cfs_period_us", c.Period)
	if c.Quota != nil && *c.Quota != 0 {
		l.add("cpu.quota", "cpu", "cpu.cfs_quota_us", i(*c.Quota))
	}
	if c.Burst != nil {
		*l = append(*l, setting{field: "cpu.burst", controller: "cpu", file: "cpu.cfs_burst_us", value: u(*c.Burst), optional: *c.Burst == 0})
	}
	set("realtimePeriod", "cpu.rt_period_us", c.RealtimePeriod)
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		l.add("cpu.realtimeRuntime", "cpu", "cpu.rt_runtime_us", i(*c.RealtimeRuntime))
	}
	if c.Idle != nil {
		l.add("cpu.idle", "cpu", "cpu.idle", i(*c.Idle))
	}
	if c.Cpus != "" {
		l.add("cpu.cpus", "cpuset", "cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		l.add("cpu.mems", "cpuset", "cpuset.mems", c.Mems)
	}
}

func (l *list) blockIOV1(b *specs.LinuxBlockIO) {
	if b == nil {
		return
	}
	if b.Weight != nil && *b.Weight != 0 {
		l.add("blockIO.weight", "blkio", "blkio.bfq.weight", u(uint64(*b.Weight)))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			l.add("blockIO.weightDevice", "blkio", "blkio.bfq.weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight))
		}
	}
	for _, t := range []struct {
		field, file string
		devices     []specs.LinuxThrottleDevice
	}{
		{"throttleReadBpsDevice", "blkio.throttle.read_bps_device", b.ThrottleReadBpsDevice},
		{"throttleWriteBpsDevice", "blkio.throttle.write_bps_device", b.ThrottleWriteBpsDevice},
		{"throttleReadIOPSDevice", "blkio.throttle.read_iops_device", b.ThrottleReadIOPSDevice},
		{"throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.devices {
			l.add("blockIO."+t.field, "blkio", t.file, fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
		}
	}
}

// setMemoryV1 writes one of the two limits of memory.
func (g *Group) setMemoryV1(dir string, s setting) error {
	err := write(dir, s.file, s.value)
	if err == nil || s.optional && missing(err) {
		return nil
	}
	if errors.Is(err, unix.EBUSY) {
		usage, _ := os.ReadFile(filepath.Join(dir, "memory.usage_in_bytes"))
		return fmt.Errorf("linux.resources.%s: %s is below what is in use, %s: %w", s.field, s.value, strings.TrimSpace(string(usage)), err)
	}
	return fmt.Errorf("linux.resources.%s: %w", s.field, err)
}

// devicesV1 are the rules of the device cgroup. A rule for everything makes
// those before it idle.
func devicesV1(rules []specs.LinuxDeviceCgroup) ([]setting, error) {
	var l list
	start := 0
	for n, r := range rules {
		if wildcard(r) {
			start = n
		}
	}
	for n, r := range rules {
		if n < start {
			continue
		}
		value, err := deviceRule(r)
		if err != nil {
			return nil, fmt.Errorf("linux.resources.devices[%d]: %w", n, err)
		}
		file := "devices.deny"
		if r.Allow {
			file = "devices.allow"
		}
		l = append(l, setting{field: fmt.Sprintf("devices[%d]", n), controller: "devices", file: file, value: value, optional: true})
	}
	return l, nil
}

// wildcard says whether a rule is about every device and every access.
func wildcard(r specs.LinuxDeviceCgroup) bool {
	return (r.Type == "" || r.Type == "a") && every(r.Major) && every(r.Minor)
}

func every(n *int64) bool { return n == nil || *n == -1 }

// deviceRule is a rule as devices.allow takes it.
func deviceRule(r specs.LinuxDeviceCgroup) (string, error) {
	if wildcard(r) {
		return "a", nil
	}
	kind := r.Type
	switch kind {
	case "b", "c":
	case "", "a":
		return "", errors.New("a rule for some devices needs the type b or c")
	default:
		return "", fmt.Errorf("type %q is none of a, b, c", kind)
	}
	access := r.Access
	if access == "" {
		access = "rwm"
	}
	if strings.Contains(access, "a") {
		access = "rwm" // a is all, as for the type
	}
	if strings.Trim(access, "rwm") != "" {
		return "", fmt.Errorf("access %q has other letters than r, w, m", access)
	}
	number := func(n *int64) string {
		if every(n) {
			return "*"
		}
		return i(*n)
	}
	return fmt.Sprintf("%s %s:%s %s", kind, number(r.Major), number(r.Minor), access), nil
}
