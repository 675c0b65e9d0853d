package seccomp

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Ins is one instruction of classic BPF (struct sock_filter).
type Ins struct {
	Code   uint16
	JT, JF uint8
	K      uint32
}

// Instructions (linux/bpf_common.h).
const (
	load   = 0x20 // A = word of struct seccomp_data at K
	and    = 0x54
	jump   = 0x05
	jumpEQ = 0x15
	jumpGT = 0x25
	jumpGE = 0x35
	ret    = 0x06
)

// Where things are in struct seccomp_data (seccomp(2)), little endian.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16
)

// What a filter returns (seccomp(2)).
const (
	retKillProcess = 0x80000000
	retKillThread  = 0x00000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
)

// maxInstructions is what the kernel takes (BPF_MAXINSNS).
const maxInstructions = 4096

// NewListener is the flag with which seccomp(2) returns a descriptor for the
// calls whose action is SCMP_ACT_NOTIFY.
const NewListener = 1 << 3

var flagValues = map[specs.LinuxSeccompFlag]uint64{
	"SECCOMP_FILTER_FLAG_TSYNC":            0, // the child has no other thread, and with a listener the kernel refuses it
	specs.LinuxSeccompFlagLog:              1 << 1,
	specs.LinuxSeccompFlagSpecAllow:        1 << 2,
	specs.LinuxSeccompFlagWaitKillableRecv: 1 << 5,
}

// Compile makes the filter and the flags of seccomp(2) for s.
func Compile(s *specs.LinuxSeccomp) (prog []Ins, flags uint64, err error) {
	def, err := action(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, 0, fmt.Errorf("defaultAction: %w", err)
	}
	if flags, err = filterFlags(s); err != nil {
		return nil, 0, err
	}
	archs, err := choose(s.Architectures)
	if err != nil {
		return nil, 0, err
	}
	var bodies [][]Ins
	for _, a := range archs {
		rules, err := collect(s, a, def)
		if err != nil {
			return nil, 0, err
		}
		bodies = append(bodies, body(a, rules, def))
	}
	prog = dispatch(archs, bodies)
	if len(prog) > maxInstructions {
		return nil, 0, fmt.Errorf("the filter has %d instructions, the kernel takes %d", len(prog), maxInstructions)
	}
	return prog, flags, nil
}

// filterFlags are those of the spec. Without any, speculation is left as it is:
// on old kernels a filter otherwise slows every program down.
func filterFlags(s *specs.LinuxSeccomp) (flags uint64, err error) {
	if s.Flags == nil {
		flags = flagValues[specs.LinuxSeccompFlagSpecAllow]
	}
	for _, f := range s.Flags {
		v, ok := flagValues[f]
		if !ok {
			return 0, fmt.Errorf("flag %q is unknown", f)
		}
		flags |= v
	}
	if slices.ContainsFunc(s.Syscalls, func(c specs.LinuxSyscall) bool { return c.Action == specs.ActNotify }) {
		flags |= NewListener
	}
	return flags, nil
}

// verdicts is what the filter returns for each action.
var verdicts = map[specs.LinuxSeccompAction]uint32{
	specs.ActKill:        retKillThread,
	specs.ActKillThread:  retKillThread,
	specs.ActKillProcess: retKillProcess,
	specs.ActTrap:        retTrap,
	specs.ActErrno:       retErrno,
	specs.ActTrace:       retTrace,
	specs.ActAllow:       retAllow,
	specs.ActLog:         retLog,
	specs.ActNotify:      retNotify,
}

// action is what the filter returns for an action with its errno.
func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	v, ok := verdicts[a]
	if !ok {
		return 0, fmt.Errorf("action %q is unknown", a)
	}
	if v == retErrno || v == retTrace {
		e := uint32(unix.EPERM)
		if errno != nil {
			e = uint32(*errno)
		}
		v |= e & 0xffff
	}
	return v, nil
}

// dispatch puts the filters of the architectures one after another, behind a
// comparison each. A call of an ABI that has none kills the process.
func dispatch(archs []arch, bodies [][]Ins) []Ins {
	prog := []Ins{{Code: ret, K: retKillProcess}}
	for i := len(archs) - 1; i >= 0; i-- {
		if archs[i].first != 0 {
			continue // part of the ABI that it shares AUDIT_ARCH with
		}
		b := bodies[i]
		for j, a := range archs {
			if a.first != 0 && a.audit == archs[i].audit {
				b = slices.Concat(branch(a.first, len(b)), b, bodies[j])
			}
		}
		if archs[i].audit == abis()[native()].audit && !slices.ContainsFunc(archs, func(a arch) bool { return a.first == x32 }) {
			b = slices.Concat(branch(x32, len(b)), b, []Ins{{Code: ret, K: retKillProcess}})
		}
		b = append([]Ins{{Code: load, K: offNumber}}, b...)
		prog = slices.Concat(skip(Ins{Code: jumpEQ, K: archs[i].audit}, len(b)), b, prog)
	}
	return append([]Ins{{Code: load, K: offArch}}, prog...)
}

// skip is a comparison that goes on below where it holds, and over n
// instructions where not.
func skip(in Ins, n int) []Ins {
	if n <= 255 {
		in.JF = uint8(n)
		return []Ins{in}
	}
	in.JF = 0
	in.JT = 1
	return []Ins{in, {Code: jump, K: uint32(n)}}
}

// branch goes on below, where low instructions are, for numbers under k, and
// over them from k up. Both ways end with a return.
func branch(k uint32, low int) []Ins {
	if low > 255 {
		return []Ins{{Code: jumpGE, K: k, JF: 1}, {Code: jump, K: uint32(low)}}
	}
	return []Ins{{Code: jumpGE, K: k, JT: uint8(low)}}
}

// Encode is the program as struct sock_filter, little endian.
func Encode(prog []Ins) []byte {
	b := make([]byte, 0, 8*len(prog))
	for _, in := range prog {
		b = binary.LittleEndian.AppendUint16(b, in.Code)
		b = append(b, in.JT, in.JF)
		b = binary.LittleEndian.AppendUint32(b, in.K)
	}
	return b
}
