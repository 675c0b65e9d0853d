package ociruntime

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// parseMask reads a list of processors or memory nodes, as "0-3,7", into the
// kernel's bit mask: whole 64-bit words.
func parseMask(list string) ([]byte, error) {
	const most = 1 << 16 // more than any kernel has of them
	var mask []uint64
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		if !isRange {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 32)
		last, err2 := strconv.ParseUint(to, 10, 32)
		if err1 != nil || err2 != nil || first > last || last >= most {
			return nil, fmt.Errorf("%q is no list of numbers such as 0-3,7", list)
		}
		for n := first; n <= last; n++ {
			for uint64(len(mask)) <= n/64 {
				mask = append(mask, 0)
			}
			mask[n/64] |= 1 << (n % 64)
		}
	}
	var b []byte
	for _, w := range mask {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b, nil
}

// onesCount is how many numbers a mask has.
func onesCount(mask []byte) (n int) {
	for _, b := range mask {
		n += bits.OnesCount8(b)
	}
	return n
}

// affinity is process.execCPUAffinity: the processors that an exec is cloned on,
// before it is in the container's group, and those that it runs on then.
func (c *compiler) affinity() error {
	a := c.affinityOf()
	if a == nil {
		return nil
	}
	if a.Initial != "" {
		mask, err := parseMask(a.Initial)
		if err != nil {
			return fmt.Errorf("process.execCPUAffinity.initial: %w", err)
		}
		c.plan.CPUs, c.plan.cpuMask = a.Initial, mask
	}
	if a.Final == "" {
		return nil
	}
	mask, err := parseMask(a.Final)
	if err != nil {
		return fmt.Errorf("process.execCPUAffinity.final: %w", err)
	}
	c.stage("run on the processors", a.Final)
	c.call("sched_setaffinity", num(0), num(len(mask)), raw(mask, a.Final))
	return nil
}

// affinityOf is that of the exec, or of all of the container's.
func (c *compiler) affinityOf() *specs.CPUAffinity {
	if a := c.process.ExecCPUAffinity; a != nil || c.spec.Process == nil {
		return a
	}
	return c.spec.Process.ExecCPUAffinity
}

// memoryModes are the policies of set_mempolicy(2), by name.
var memoryModes = map[specs.MemoryPolicyModeType]int{
	specs.MpolDefault: 0, specs.MpolPreferred: 1, specs.MpolBind: 2, specs.MpolInterleave: 3,
	specs.MpolLocal: 4, specs.MpolPreferredMany: 5, specs.MpolWeightedInterleave: 6,
}

// memoryFlags are its flags.
var memoryFlags = map[specs.MemoryPolicyFlagType]int{
	specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15,
}

// memoryPolicy sets linux.memoryPolicy, which a program keeps over execve.
func (c *compiler) memoryPolicy() error {
	m := c.linux.MemoryPolicy
	if m == nil {
		return nil
	}
	mode, ok := memoryModes[m.Mode]
	if !ok {
		return fmt.Errorf("linux.memoryPolicy: invalid memory policy mode %q", m.Mode)
	}
	names := []string{string(m.Mode)}
	for _, f := range m.Flags {
		v, ok := memoryFlags[f]
		if !ok {
			return fmt.Errorf("linux.memoryPolicy: invalid memory policy flag %q", f)
		}
		mode |= v
		names = append(names, string(f))
	}
	slices.Sort(names[1:])
	nodes, size := null(), 0
	var mask []byte
	if m.Nodes != "" {
		var err error
		if mask, err = parseMask(m.Nodes); err != nil {
			return fmt.Errorf("linux.memoryPolicy: invalid memory policy nodes: %w", err)
		}
		// The kernel reads one bit less than it is told.
		nodes, size = raw(mask, m.Nodes), 8*len(mask)+1
	}
	if n := onesCount(mask); n > 0 && (m.Mode == specs.MpolDefault || m.Mode == specs.MpolLocal) {
		return fmt.Errorf("linux.memoryPolicy: %s: mode requires 0 nodes but got %d", m.Mode, n)
	}
	c.stage("set memory policy", string(m.Mode))
	c.call("set_mempolicy", named(mode, strings.Join(names, "|")), nodes, num(size))
	return nil
}
