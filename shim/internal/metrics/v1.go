package metrics

import (
	"strconv"
	"strings"

	"github.com/gantryd/gantry/internal/wire"
)

// groups are the directories of the cgroups of one container, by controller.
type groups map[string]string

func (g groups) of(controller string) group { return group(g[controller]) }

// v1 is io.containerd.cgroups.v1.Metrics.
func (g groups) v1(c *wire.Codec) {
	huge := g.of("hugetlb")
	huge.hugetlb(func(size string) {
		c.Put(1, message(func(c *wire.Codec) {
			put(c, 1, huge.number("hugetlb."+size+".usage_in_bytes", 0))
			put(c, 2, huge.number("hugetlb."+size+".max_usage_in_bytes", 0))
			put(c, 3, huge.number("hugetlb."+size+".failcnt", 0))
			c.String(4, &size)
		}))
	})
	c.Put(2, message(g.of("pids").pids))
	c.Put(3, message(g.cpuV1))
	c.Put(4, message(g.of("memory").memoryV1))
	c.Put(5, message(g.of("blkio").blkioV1))
	c.Put(9, message(g.of("memory").oomV1))
}

// userHZ is the unit of cpuacct.stat: ticks of 1/100 s on every architecture (time(7)).
const userHZ = 100

func (g groups) cpuV1(c *wire.Codec) {
	acct := g.of("cpuacct")
	c.Put(1, message(func(c *wire.Codec) {
		ticks := acct.table("cpuacct.stat")
		put(c, 1, acct.number("cpuacct.usage", 0))
		put(c, 2, ticks["system"]*(1e9/userHZ))
		put(c, 3, ticks["user"]*(1e9/userHZ))
		var percpu []uint64
		for f := range strings.FieldsSeq(acct.read("cpuacct.usage_percpu")) {
			n, _ := strconv.ParseUint(f, 10, 64)
			percpu = append(percpu, n)
		}
		c.Uints(4, &percpu)
	}))
	c.Put(2, message(func(c *wire.Codec) {
		putTable(c, 1, g.of("cpu").table("cpu.stat"), "nr_periods", "nr_throttled", "throttled_time")
	}))
}

func (g group) memoryV1(c *wire.Codec) {
	putTable(c, 1, g.table("memory.stat"),
		"cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pgpgin", "pgpgout", "pgfault", "pgmajfault",
		"inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable",
		"hierarchical_memory_limit", "hierarchical_memsw_limit",
		"total_cache", "total_rss", "total_rss_huge", "total_mapped_file", "total_dirty", "total_writeback",
		"total_pgpgin", "total_pgpgout", "total_pgfault", "total_pgmajfault",
		"total_inactive_anon", "total_active_anon", "total_inactive_file", "total_active_file", "total_unevictable")
	for i, kind := range []string{"memory.", "memory.memsw.", "memory.kmem.", "memory.kmem.tcp."} {
		if g.read(kind+"usage_in_bytes") == "" {
			continue // not in every kernel
		}
		c.Put(33+i, message(func(c *wire.Codec) {
			put(c, 1, g.number(kind+"limit_in_bytes", 0))
			put(c, 2, g.number(kind+"usage_in_bytes", 0))
			put(c, 3, g.number(kind+"max_usage_in_bytes", 0))
			put(c, 4, g.number(kind+"failcnt", 0))
		}))
	}
}

func (g group) oomV1(c *wire.Codec) {
	putTable(c, 1, g.table("memory.oom_control"), "oom_kill_disable", "under_oom", "oom_kill")
}

// blkioV1 has the counters of the scheduler, or, where none counts, of throttling.
func (g group) blkioV1(c *wire.Codec) {
	for _, f := range []struct {
		num   int
		files []string
	}{
		{1, []string{"blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_service_bytes"}},
		{2, []string{"blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive", "blkio.throttle.io_serviced"}},
		{3, []string{"blkio.bfq.io_queued_recursive"}},
		{4, []string{"blkio.bfq.io_service_time_recursive"}},
		{5, []string{"blkio.bfq.io_wait_time_recursive"}},
		{6, []string{"blkio.bfq.io_merged_recursive"}},
		{7, []string{"blkio.bfq.time_recursive"}},
		{8, []string{"blkio.bfq.sectors_recursive"}},
	} {
		for _, file := range f.files {
			if g.blkioFile(c, f.num, file) {
				break
			}
		}
	}
}

// blkioFile encodes lines "MAJOR:MINOR [OPERATION] NUMBER"; it says whether there were any.
func (g group) blkioFile(c *wire.Codec, num int, file string) (some bool) {
	for line := range strings.Lines(g.read(file)) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] == "Total" {
			continue
		}
		major, minor, ok := device(f[0])
		value, err := strconv.ParseUint(f[len(f)-1], 10, 64)
		if !ok || err != nil {
			continue
		}
		op := ""
		if len(f) == 3 {
			op = f[1]
		}
		some = true
		c.Put(num, message(func(c *wire.Codec) {
			c.String(1, &op)
			put(c, 3, major)
			put(c, 4, minor)
			put(c, 5, value)
		}))
	}
	return some
}

func device(s string) (major, minor uint64, ok bool) {
	a, b, _ := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 64)
	minor, err2 := strconv.ParseUint(b, 10, 64)
	return major, minor, err1 == nil && err2 == nil
}
