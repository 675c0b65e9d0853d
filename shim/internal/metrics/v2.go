package metrics

import (
	"strconv"
	"strings"

	"github.com/gantryd/gantry/internal/wire"
)

// v2 is io.containerd.cgroups.v2.Metrics.
func (g group) v2(c *wire.Codec) {
	c.Put(1, message(g.pids))
	c.Put(2, message(func(c *wire.Codec) {
		t := g.table("cpu.stat")
		putTable(c, 1, t, "usage_usec", "user_usec", "system_usec", "nr_periods", "nr_throttled", "throttled_usec")
		g.pressure(c, 7, "cpu.pressure")
		putTable(c, 8, t, "nr_bursts", "burst_usec")
	}))
	c.Put(4, message(g.memoryV2))
	c.Put(6, message(g.ioV2))
	g.hugetlb(func(size string) {
		c.Put(7, message(func(c *wire.Codec) {
			put(c, 1, g.number("hugetlb."+size+".current", 0))
			put(c, 2, g.number("hugetlb."+size+".max", unlimited))
			c.String(3, &size)
			put(c, 4, g.table("hugetlb." + size + ".events")["max"])
		}))
	})
	c.Put(8, message(func(c *wire.Codec) {
		putTable(c, 1, g.table("memory.events"), "low", "high", "max", "oom", "oom_kill", "oom_group_kill")
	}))
}

func (g group) memoryV2(c *wire.Codec) {
	putTable(c, 1, g.table("memory.stat"),
		"anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty", "file_writeback",
		"anon_thp", "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable",
		"slab_reclaimable", "slab_unreclaimable", "pgfault", "pgmajfault",
		"workingset_refault", "workingset_activate", "workingset_nodereclaim",
		"pgrefill", "pgscan", "pgsteal", "pgactivate", "pgdeactivate", "pglazyfree", "pglazyfreed",
		"thp_fault_alloc", "thp_collapse_alloc")
	put(c, 32, g.number("memory.current", 0))
	put(c, 33, g.number("memory.max", unlimited))
	put(c, 34, g.number("memory.swap.current", 0))
	put(c, 35, g.number("memory.swap.max", unlimited))
	put(c, 36, g.number("memory.peak", 0))
	put(c, 37, g.number("memory.swap.peak", 0))
	g.pressure(c, 38, "memory.pressure")
}

// ioV2 reads lines "MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N …".
func (g group) ioV2(c *wire.Codec) {
	for line := range strings.Lines(g.read("io.stat")) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		major, minor, ok := device(f[0])
		if !ok {
			continue
		}
		t := map[string]uint64{}
		for _, kv := range f[1:] {
			k, v, _ := strings.Cut(kv, "=")
			t[k], _ = strconv.ParseUint(v, 10, 64)
		}
		c.Put(1, message(func(c *wire.Codec) {
			put(c, 1, major)
			put(c, 2, minor)
			putTable(c, 3, t, "rbytes", "wbytes", "rios", "wios")
		}))
	}
	g.pressure(c, 2, "io.pressure")
}

// pressure encodes a PSI file (kernel, accounting/psi):
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
func (g group) pressure(c *wire.Codec, num int, file string) {
	text := g.read(file)
	if text == "" {
		return
	}
	c.Put(num, message(func(c *wire.Codec) {
		for line := range strings.Lines(text) {
			kind, rest, _ := strings.Cut(line, " ")
			c.Put(map[string]int{"some": 1, "full": 2}[kind], message(func(c *wire.Codec) { pressureLine(c, rest) }))
		}
	}))
}

func pressureLine(c *wire.Codec, line string) {
	for kv := range strings.FieldsSeq(line) {
		k, v, _ := strings.Cut(kv, "=")
		if k == "total" {
			n, _ := strconv.ParseUint(v, 10, 64)
			put(c, 4, n)
			continue
		}
		f, _ := strconv.ParseFloat(v, 64)
		c.Double(map[string]int{"avg10": 1, "avg60": 2, "avg300": 3}[k], &f)
	}
}
