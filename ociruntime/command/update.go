package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/ociruntime"
)

var updateCommand = command{
	name: "update", args: "CONTAINER", least: 1, most: 1,
	about: "change the limits of a running container",
	flags: func(f *flags) action {
		u := updateFlags(f)
		return with(func(s *session, c *ociruntime.Container) error {
			r, err := u.resources(f, s.stdin)
			if err != nil {
				return err
			}
			return c.Update(r)
		})
	},
}

// update is the file of --resources, and one flag for each number.
type update struct {
	file, cpus, mems  *string
	cacheSchema, mbps *string
	numbers           map[string]*string
}

// number is a flag of update that holds one number, and its field.
type number struct {
	flag, about string
	set         func(r *specs.LinuxResources, v int64)
}

var numberFlags = []number{
	{"cpu-period", "length of a period of CPU time, in µs", func(r *specs.LinuxResources, v int64) { r.CPU.Period = unsigned(v) }},
	{"cpu-quota", "CPU time in a period, in µs", func(r *specs.LinuxResources, v int64) { r.CPU.Quota = &v }},
	{"cpu-burst", "CPU time that may be saved up, in µs", func(r *specs.LinuxResources, v int64) { r.CPU.Burst = unsigned(v) }},
	{"cpu-share", "weight of the CPU time against others", func(r *specs.LinuxResources, v int64) { r.CPU.Shares = unsigned(v) }},
	{"cpu-rt-period", "length of a period of realtime, in µs", func(r *specs.LinuxResources, v int64) { r.CPU.RealtimePeriod = unsigned(v) }},
	{"cpu-rt-runtime", "realtime in a period, in µs", func(r *specs.LinuxResources, v int64) { r.CPU.RealtimeRuntime = &v }},
	{"cpu-idle", "1 for SCHED_IDLE, 0 for not", func(r *specs.LinuxResources, v int64) { r.CPU.Idle = &v }},
	{"memory", "most memory, in bytes or with a unit: 32M", func(r *specs.LinuxResources, v int64) { r.Memory.Limit = &v }},
	{"memory-reservation", "memory that is left when memory is short", func(r *specs.LinuxResources, v int64) { r.Memory.Reservation = &v }},
	{"memory-swap", "most memory and swap together, -1 for no limit", func(r *specs.LinuxResources, v int64) { r.Memory.Swap = &v }},
	{"pids-limit", "most processes and threads", func(r *specs.LinuxResources, v int64) { r.Pids = &specs.LinuxPids{Limit: &v} }},
	{"blkio-weight", "weight of block I/O, 10 to 1000", func(r *specs.LinuxResources, v int64) {
		w := uint16(min(v, math.MaxUint16))
		r.BlockIO = &specs.LinuxBlockIO{Weight: &w}
	}},
}

func unsigned(v int64) *uint64 { u := uint64(v); return &u }

func updateFlags(f *flags) update {
	u := update{numbers: map[string]*string{}}
	u.file = f.text("resources r", "FILE", "the limits as JSON, '-' for stdin, in place of other flags", "")
	for _, n := range numberFlags {
		u.numbers[n.flag] = f.text(n.flag, "N", n.about, "")
	}
	u.cpus = f.text("cpuset-cpus", "LIST", "CPUs that may be used", "")
	u.mems = f.text("cpuset-mems", "LIST", "memory nodes that may be used", "")
	u.cacheSchema = f.text("l3-cache-schema", "SCHEMA", "not supported yet", "")
	u.mbps = f.text("mem-bw-schema", "SCHEMA", "not supported yet", "")
	return u
}

func (u update) resources(f *flags, stdin io.Reader) (*specs.LinuxResources, error) {
	if *u.cacheSchema != "" || *u.mbps != "" {
		return nil, errors.New("update: --l3-cache-schema and --mem-bw-schema are not supported")
	}
	if *u.file != "" {
		return readResources(*u.file, stdin)
	}
	r := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: *u.cpus, Mems: *u.mems}, Memory: &specs.LinuxMemory{}}
	for _, n := range numberFlags {
		if !f.given(n.flag) {
			continue
		}
		v, err := parseSize(*u.numbers[n.flag])
		if err != nil {
			return nil, fmt.Errorf("update: --%s: %w", n.flag, err)
		}
		if v < 0 && !strings.HasPrefix(n.flag, "memory") && n.flag != "cpu-quota" && n.flag != "pids-limit" {
			return nil, fmt.Errorf("update: --%s: %d is negative", n.flag, v)
		}
		if v != 0 || slices.Contains([]string{"cpu-idle", "cpu-burst", "pids-limit"}, n.flag) { // 0 leaves others as they are
			n.set(r, v)
		}
	}
	return r, nil
}

func readResources(file string, stdin io.Reader) (*specs.LinuxResources, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read --resources: %w", err)
		}
		defer f.Close()
		in = f
	}
	var r specs.LinuxResources
	if err := json.NewDecoder(in).Decode(&r); err != nil {
		return nil, fmt.Errorf("parse --resources %s: %w", file, err)
	}
	forgetZeros(&r)
	return &r, nil
}

// forgetZeros makes a number that is 0 one that stays as it is, which callers
// send for what they do not mean to change.
func forgetZeros(r *specs.LinuxResources) {
	if c := r.CPU; c != nil {
		c.Shares, c.Period, c.RealtimePeriod = notZero(c.Shares), notZero(c.Period), notZero(c.RealtimePeriod)
		c.Quota, c.RealtimeRuntime = notZero(c.Quota), notZero(c.RealtimeRuntime)
	}
	if m := r.Memory; m != nil {
		m.Limit, m.Reservation, m.Swap = notZero(m.Limit), notZero(m.Reservation), notZero(m.Swap)
	}
	if b := r.BlockIO; b != nil {
		b.Weight, b.LeafWeight = notZero(b.Weight), notZero(b.LeafWeight)
	}
	if r.Pids != nil && notZero(r.Pids.Limit) == nil {
		r.Pids = nil
	}
}

func notZero[N int64 | uint64 | uint16](p *N) *N {
	if p != nil && *p == 0 {
		return nil
	}
	return p
}

// parseSize reads a number with an optional binary unit: 1024, 32M, 1GiB, -1.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "bBiIkKmMgGtTpP")
	unit := sizeUnit(s[len(digits):])
	if unit == "" || unit == "b" {
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%q is no number", s)
		}
		return n, nil
	}
	shift, ok := map[string]int{"k": 10, "m": 20, "g": 30, "t": 40, "p": 50}[unit]
	n, err := strconv.ParseFloat(digits, 64)
	if v := math.Ldexp(n, shift); ok && err == nil && math.Abs(v) < math.MaxInt64 {
		return int64(v), nil
	}
	return 0, fmt.Errorf("%q is no size", s)
}

// sizeUnit makes "m" of "M", "MB" and "MiB".
func sizeUnit(s string) string {
	s = strings.ToLower(s)
	if u := strings.TrimSuffix(strings.TrimSuffix(s, "b"), "i"); u != "" {
		return u
	}
	return s
}
