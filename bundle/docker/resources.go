package docker

import (
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bundle"
)

// cpuPeriod is the period over which --cpus is counted, in microseconds.
const cpuPeriod = 100_000

// minMemory is the least that a container can be given, in bytes: less, and the
// runtime itself does not start.
const minMemory = 6 << 20

// refuse is an InvalidArgument with a text that is shown as it is.
func refuse(format string, args ...any) error {
	return errdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

// validate refuses what no kernel can do.
func validate(host *container.HostConfig) error {
	r := host.Resources
	cpus := float64(r.NanoCPUs) / 1e9
	for _, rule := range []struct {
		broken bool
		text   string
	}{
		{r.Memory != 0 && r.Memory < minMemory, "Minimum memory limit allowed is 6MB"},
		{r.Memory == 0 && r.MemorySwap > 0, "You should always set the Memory limit when using Memoryswap limit, see usage"},
		{r.MemorySwap > 0 && r.MemorySwap < r.Memory, "Minimum memoryswap limit should be larger than memory limit, see usage"},
		{r.MemoryReservation != 0 && r.MemoryReservation < minMemory, "Minimum memory reservation allowed is 6MB"},
		{r.Memory > 0 && r.MemoryReservation > r.Memory, "Minimum memory limit can not be less than memory reservation limit, see usage"},
		{r.MemorySwappiness != nil && (*r.MemorySwappiness < -1 || *r.MemorySwappiness > 100), "Invalid value for memory swappiness, valid range is 0-100"},
		{r.NanoCPUs != 0 && r.CPUPeriod != 0, "Conflicting options: Nano CPUs and CPU Period cannot both be set"},
		{r.NanoCPUs != 0 && r.CPUQuota != 0, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"},
		{r.NanoCPUs < 0 || cpus > float64(runtime.NumCPU()), fmt.Sprintf("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", runtime.NumCPU(), runtime.NumCPU())},
		{r.CPUShares < 0, "shares must be 0 or more"},
		{r.CPUPeriod != 0 && (r.CPUPeriod < 1000 || r.CPUPeriod > 1_000_000), "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"},
		{r.CPUQuota > 0 && r.CPUQuota < 1000, "CPU cfs quota can not be less than 1ms (i.e. 1000)"},
		{r.BlkioWeight != 0 && (r.BlkioWeight < 10 || r.BlkioWeight > 1000), "Range of blkio weight is from 10 to 1000"},
		{host.OomScoreAdj < -1000 || host.OomScoreAdj > 1000, fmt.Sprintf("Invalid value %d, range for oom score adj is [-1000, 1000]", host.OomScoreAdj)},
		{host.ShmSize < 0, "SHM size can not be less than 0"},
		{!host.IpcMode.Valid(), fmt.Sprintf("invalid IPC mode: %v", host.IpcMode)},
		{!host.PidMode.Valid(), fmt.Sprintf("invalid PID mode: %v", host.PidMode)},
		{!host.UTSMode.Valid(), fmt.Sprintf("invalid UTS mode: %v", host.UTSMode)},
		{!host.UsernsMode.Valid(), fmt.Sprintf("invalid user namespace mode: %v", host.UsernsMode)},
		{!host.CgroupnsMode.Valid(), fmt.Sprintf("invalid cgroup namespace mode: %v", host.CgroupnsMode)},
	} {
		if rule.broken {
			return refuse("%s", rule.text)
		}
	}
	if err := validCPUSet("cpus", r.CpusetCpus, runtime.NumCPU()); err != nil {
		return err
	}
	return validCPUSet("mems", r.CpusetMems, 1024)
}

// validCPUSet reads a list like "0-2,4".
func validCPUSet(what, list string, count int) error {
	if list == "" {
		return nil
	}
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(part, "-")
		if !isRange {
			high = low
		}
		a, errA := strconv.ParseUint(low, 10, 16)
		b, errB := strconv.ParseUint(high, 10, 16)
		if errA != nil || errB != nil || a > b {
			return refuse("Invalid value %s for cpuset %s", list, what)
		}
		if int(b) >= count {
			return refuse("Requested %s are not available - requested %s, available: 0-%d", strings.ToUpper(what[:3])+what[3:], list, count-1)
		}
	}
	return nil
}

// resources in the words of the runtime spec; what is not limited is left out.
func resources(r container.Resources) (specs.LinuxResources, error) {
	blkio, err := blockIO(r)
	if err != nil {
		return specs.LinuxResources{}, err
	}
	res := specs.LinuxResources{Memory: memory(r), CPU: cpu(r), BlockIO: blkio}
	if r.PidsLimit != nil && *r.PidsLimit > 0 {
		res.Pids = &specs.LinuxPids{Limit: r.PidsLimit}
	}
	return res, nil
}

// positive is n, or nil where it limits nothing.
func positive[N int64 | uint64](n N) *N {
	if n <= 0 {
		return nil
	}
	return &n
}

func memory(r container.Resources) *specs.LinuxMemory {
	m := specs.LinuxMemory{Limit: positive(r.Memory), Reservation: positive(r.MemoryReservation), Swap: positive(r.MemorySwap)}
	if r.Memory > 0 && r.MemorySwap == -1 {
		m.Swap = &r.MemorySwap
	}
	if r.MemorySwappiness != nil && *r.MemorySwappiness != -1 {
		s := uint64(*r.MemorySwappiness)
		m.Swappiness = &s
	}
	if r.OomKillDisable != nil && *r.OomKillDisable {
		m.DisableOOMKiller = r.OomKillDisable
	}
	if m == (specs.LinuxMemory{}) {
		return nil
	}
	return &m
}

func cpu(r container.Resources) *specs.LinuxCPU {
	c := specs.LinuxCPU{
		Shares: positive(uint64(r.CPUShares)), Period: positive(uint64(r.CPUPeriod)), Quota: positive(r.CPUQuota),
		RealtimePeriod: positive(uint64(r.CPURealtimePeriod)), RealtimeRuntime: positive(r.CPURealtimeRuntime),
		Cpus: r.CpusetCpus, Mems: r.CpusetMems,
	}
	if r.NanoCPUs > 0 {
		period, quota := uint64(cpuPeriod), r.NanoCPUs*cpuPeriod/1_000_000_000
		c.Period, c.Quota = &period, &quota
	}
	if c == (specs.LinuxCPU{}) {
		return nil
	}
	return &c
}

func blockIO(r container.Resources) (*specs.LinuxBlockIO, error) {
	var b specs.LinuxBlockIO
	if r.BlkioWeight > 0 {
		b.Weight = &r.BlkioWeight
	}
	for _, d := range r.BlkioWeightDevice {
		major, minor, err := deviceNumber(d.Path)
		if err != nil {
			return nil, err
		}
		w := specs.LinuxWeightDevice{Weight: &d.Weight}
		w.Major, w.Minor = major, minor
		b.WeightDevice = append(b.WeightDevice, w)
	}
	throttles := 0
	for _, t := range []struct {
		from []*blkiodev.ThrottleDevice
		to   *[]specs.LinuxThrottleDevice
	}{
		{r.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice},
		{r.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{r.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice},
		{r.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, d := range t.from {
			major, minor, err := deviceNumber(d.Path)
			if err != nil {
				return nil, err
			}
			th := specs.LinuxThrottleDevice{Rate: d.Rate}
			th.Major, th.Minor = major, minor
			*t.to = append(*t.to, th)
			throttles++
		}
	}
	if b.Weight == nil && b.WeightDevice == nil && throttles == 0 {
		return nil, nil
	}
	return &b, nil
}

func deviceNumber(name string) (major, minor int64, err error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return 0, 0, refuse("stat block device %s: %v", name, err)
	}
	return int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev)), nil
}

func rlimits(limits []*container.Ulimit) []specs.POSIXRlimit {
	var rs []specs.POSIXRlimit
	for _, u := range limits {
		rs = append(rs, specs.POSIXRlimit{Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard)})
	}
	return rs
}

func devices(mappings []container.DeviceMapping) []bundle.Device {
	var ds []bundle.Device
	for _, m := range mappings {
		ds = append(ds, bundle.Device{HostPath: m.PathOnHost, Path: m.PathInContainer, Access: m.CgroupPermissions})
	}
	return ds
}

// deviceRules reads rules in the words of the devices cgroup: "c 10:* rwm".
func deviceRules(lines []string) ([]specs.LinuxDeviceCgroup, error) {
	form := regexp.MustCompile(`^([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})$`)
	var rules []specs.LinuxDeviceCgroup
	for _, line := range lines {
		m := form.FindStringSubmatch(line)
		if m == nil {
			return nil, refuse("invalid device cgroup rule format: '%s'", line)
		}
		major, minor := number(m[2]), number(m[3])
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: m[1], Major: &major, Minor: &minor, Access: m[4]})
	}
	return rules, nil
}

// number of a device; -1 is every one.
func number(s string) int64 {
	if s == "*" {
		return -1
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil {
		return -1
	}
	return n
}

// mergePorts adds the ports that the image exposes.
func mergePorts(cfg *container.Config, img dockerspec.DockerOCIImageConfig) error {
	for p := range img.ExposedPorts {
		port, err := network.ParsePort(p)
		if err != nil {
			return refuse("exposed port %q of the image: %v", p, err)
		}
		if cfg.ExposedPorts == nil {
			cfg.ExposedPorts = network.PortSet{}
		}
		cfg.ExposedPorts[port] = struct{}{}
	}
	return nil
}
