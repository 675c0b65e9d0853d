package ociruntime

// Stats is what the cgroups of a container have counted, in the shape that
// `events --stats` prints. Times are nanoseconds, sizes bytes.
type Stats struct {
	CgroupVersion int `json:"-"` // 1 or 2

	CPU     CPUStats                 `json:"cpu"`
	CPUSet  CPUSetStats              `json:"cpuset"`
	Memory  MemoryStats              `json:"memory"`
	Pids    PidsStats                `json:"pids"`
	Blkio   BlkioStats               `json:"blkio"`
	Hugetlb map[string]HugetlbStats  `json:"hugetlb"`
	Rdma    map[string][]RdmaCounter `json:"-"`
}

// CPUStats is time used and time throttled.
type CPUStats struct {
	Usage      CPUUsage   `json:"usage"`
	Throttling Throttling `json:"throttling"`
	PSI        *PSIStats  `json:"psi,omitempty"`
}

// CPUUsage is in nanoseconds.
type CPUUsage struct {
	Total        uint64   `json:"total"`
	Percpu       []uint64 `json:"percpu,omitempty"`
	PercpuKernel []uint64 `json:"percpu_kernel,omitempty"`
	PercpuUser   []uint64 `json:"percpu_user,omitempty"`
	Kernel       uint64   `json:"kernel"`
	User         uint64   `json:"user"`
}

// Throttling is what the CPU quota did.
type Throttling struct {
	Periods          uint64 `json:"periods,omitempty"`
	ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
	ThrottledTime    uint64 `json:"throttledTime,omitempty"` // nanoseconds
}

// CPUSetStats is where the container may run.
type CPUSetStats struct {
	CPUs []uint16 `json:"cpus,omitempty"`
	Mems []uint16 `json:"mems,omitempty"`
}

// MemoryEntry is one counter of memory with its limit.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"` // math.MaxUint64 for none
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// MemoryStats is what the memory controller counts.
type MemoryStats struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryEntry       `json:"usage,omitempty"`
	Swap      MemoryEntry       `json:"swap,omitempty"` // memory and swap together on v1, swap alone on v2
	Kernel    MemoryEntry       `json:"kernel,omitempty"`
	KernelTCP MemoryEntry       `json:"kernelTCP,omitempty"`
	Raw       map[string]uint64 `json:"raw,omitempty"` // memory.stat
	OOMKill   uint64            `json:"-"`             // processes killed for want of memory
	PSI       *PSIStats         `json:"psi,omitempty"`
}

// PidsStats is the number of tasks.
type PidsStats struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"` // 0 for none
}

// BlkioEntry is one counter of one device.
type BlkioEntry struct {
	Major uint64 `json:"major,omitempty"`
	Minor uint64 `json:"minor,omitempty"`
	Op    string `json:"op,omitempty"` // "Read", "Write", …
	Value uint64 `json:"value,omitempty"`
}

// BlkioStats is what block devices did for the container.
type BlkioStats struct {
	IoServiceBytesRecursive []BlkioEntry `json:"ioServiceBytesRecursive,omitempty"`
	IoServicedRecursive     []BlkioEntry `json:"ioServicedRecursive,omitempty"`
	IoQueuedRecursive       []BlkioEntry `json:"ioQueueRecursive,omitempty"`
	IoServiceTimeRecursive  []BlkioEntry `json:"ioServiceTimeRecursive,omitempty"`
	IoWaitTimeRecursive     []BlkioEntry `json:"ioWaitTimeRecursive,omitempty"`
	IoMergedRecursive       []BlkioEntry `json:"ioMergedRecursive,omitempty"`
	IoTimeRecursive         []BlkioEntry `json:"ioTimeRecursive,omitempty"`
	SectorsRecursive        []BlkioEntry `json:"sectorsRecursive,omitempty"`
	PSI                     *PSIStats    `json:"psi,omitempty"`
}

// HugetlbStats is one size of huge page.
type HugetlbStats struct {
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// RdmaCounter is one RDMA device.
type RdmaCounter struct {
	Device  string
	Handles uint32
	Objects uint32
}

// PSIData is one line of pressure stall information.
type PSIData struct {
	Avg10  float64 `json:"avg10"`
	Avg60  float64 `json:"avg60"`
	Avg300 float64 `json:"avg300"`
	Total  uint64  `json:"total"` // microseconds
}

// PSIStats is pressure stall information (cgroup v2).
type PSIStats struct {
	Some PSIData `json:"some"`
	Full PSIData `json:"full"`
}
