package cgroup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// setDevicesV2 lets a program decide on devices: cgroup v2 has no files for
// them. The new one is attached before those of an earlier call go, so that no
// moment is without.
func setDevicesV2(dir string, rules []specs.LinuxDeviceCgroup) error {
	code, err := deviceProgram(rules)
	if err != nil {
		return err
	}
	prog, err := loadDeviceProgram(code)
	if errors.Is(err, unix.EPERM) && Restricted() {
		return nil // devices are guarded by their permissions, and none can be made
	}
	if err != nil {
		return fmt.Errorf("linux.resources.devices: bpf(PROG_LOAD): %w", err)
	}
	defer unix.Close(prog)
	group, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("linux.resources.devices: open cgroup %s: %w", dir, err)
	}
	defer unix.Close(group)
	old, err := attachedDevicePrograms(group)
	if err != nil {
		return fmt.Errorf("linux.resources.devices: bpf(PROG_QUERY) on %s: %w", dir, err)
	}
	attach := struct{ target, prog, kind, flags uint32 }{uint32(group), uint32(prog), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI}
	if _, err := bpf(unix.BPF_PROG_ATTACH, unsafe.Pointer(&attach), unsafe.Sizeof(attach)); err != nil {
		return fmt.Errorf("linux.resources.devices: bpf(PROG_ATTACH) to %s: %w", dir, err)
	}
	for _, id := range old {
		if err := detach(group, id); err != nil {
			return fmt.Errorf("linux.resources.devices: bpf(PROG_DETACH) from %s: %w", dir, err)
		}
	}
	return nil
}

func bpf(cmd int, attr unsafe.Pointer, size uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(attr), size)
		switch {
		case errno == 0:
			return int(n), nil
		case errno != unix.EINTR && errno != unix.EAGAIN: // the verifier was interrupted
			return -1, errno
		}
	}
}

// union bpf_attr for BPF_PROG_LOAD, as far as we fill it (linux/bpf.h).
type progLoad struct {
	kind, count    uint32
	insns, license uint64
	logLevel       uint32
	logSize        uint32
	logBuf         uint64
	kernel, flags  uint32
	name           [16]byte
}

func loadDeviceProgram(code []byte) (int, error) {
	const instruction = 8
	license := []byte("Apache-2.0\x00")
	attr := progLoad{
		kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(code) / instruction),
		insns: uint64(uintptr(unsafe.Pointer(&code[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(attr.name[:], "gantry_devices")
	fd, err := bpf(unix.BPF_PROG_LOAD, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	keepAlive(code, license)
	return fd, err
}

// keepAlive holds on to what a system call has the address of.
//
//go:noinline
func keepAlive(...[]byte) {}

// union bpf_attr for BPF_PROG_QUERY, whole: Linux 6.17 to 7.1 writes revision
// whatever size it is told.
type progQuery struct {
	target, kind, queryFlags, attachFlags uint32
	ids                                   uint64
	count, _                              uint32
	progAttachFlags                       uint64
	linkIDs, linkAttachFlags              uint64
	revision                              uint64
}

// attachedDevicePrograms are the ids of the programs of the group itself.
func attachedDevicePrograms(group int) ([]uint32, error) {
	const most = 64 // as the kernel
	ids := make([]uint32, most)
	attr := progQuery{target: uint32(group), kind: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), count: most}
	_, err := bpf(unix.BPF_PROG_QUERY, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return ids[:attr.count%(most+1)], err
}

func detach(group int, id uint32) error {
	byID := struct{ id, next, flags uint32 }{id: id}
	prog, err := bpf(unix.BPF_PROG_GET_FD_BY_ID, unsafe.Pointer(&byID), unsafe.Sizeof(byID))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(prog)
	attr := struct{ target, prog, kind, flags uint32 }{uint32(group), uint32(prog), unix.BPF_CGROUP_DEVICE, 0}
	_, err = bpf(unix.BPF_PROG_DETACH, unsafe.Pointer(&attr), unsafe.Sizeof(attr))
	return err
}

// Instructions of eBPF (Documentation/bpf/standardization/instruction-set.rst).
const (
	ldxWord  = 0x61
	movReg32 = 0xbc
	and32    = 0x54
	rsh32    = 0x74
	jne      = 0x55
	jeq      = 0x15
	mov64    = 0xb7
	exit     = 0x95
)

// Registers of the program.
const (
	result = iota
	context
	kind
	access
	major
	minor
)

// deviceProgram is the rules as a program: the last rule that is about a request
// decides, and without one it is denied. The request is a struct
// bpf_cgroup_dev_ctx: access in the upper half of the first word, kind in the
// lower, then major and minor.
func deviceProgram(rules []specs.LinuxDeviceCgroup) ([]byte, error) {
	code := slices.Concat(
		ins(ldxWord, kind, context, 0, 0),
		ins(movReg32, access, kind, 0, 0),
		ins(and32, kind, 0, 0, 0xffff),
		ins(rsh32, access, 0, 0, 16),
		ins(ldxWord, major, context, 4, 0),
		ins(ldxWord, minor, context, 8, 0),
	)
	for n, r := range slices.Backward(rules) {
		if _, err := deviceRule(r); err != nil {
			return nil, fmt.Errorf("linux.resources.devices[%d]: %w", n, err)
		}
		code = append(code, ruleCode(r)...)
		if wildcard(r) {
			return code, nil // it makes all before it idle, and the kernel takes no idle code
		}
	}
	return append(code, verdictCode(false)...), nil
}

func verdictCode(allow bool) []byte {
	n := int32(0)
	if allow {
		n = 1
	}
	return append(ins(mov64, result, 0, 0, n), ins(exit, 0, 0, 0, 0)...)
}

// ruleCode decides a request that the rule is about, and falls through for any other.
func ruleCode(r specs.LinuxDeviceCgroup) []byte {
	type test struct {
		before []byte
		op     byte // jumps where the rule is not about the request
		reg    byte
		value  int32
	}
	var tests []test
	if k, ok := map[string]int32{"b": unix.BPF_DEVCG_DEV_BLOCK, "c": unix.BPF_DEVCG_DEV_CHAR}[r.Type]; ok {
		tests = append(tests, test{op: jne, reg: kind, value: k})
	}
	if bits := accessBits(r.Access); bits != 7 && !wildcard(r) {
		// An allowance is about what it covers whole, a denial about what it touches.
		t := test{op: jeq, reg: context, before: append(ins(movReg32, context, access, 0, 0), ins(and32, context, 0, 0, bits)...)}
		if r.Allow {
			t.op, t.before = jne, append(ins(movReg32, context, access, 0, 0), ins(and32, context, 0, 0, ^bits)...)
		}
		tests = append(tests, t)
	}
	if !every(r.Major) {
		tests = append(tests, test{op: jne, reg: major, value: int32(*r.Major)})
	}
	if !every(r.Minor) {
		tests = append(tests, test{op: jne, reg: minor, value: int32(*r.Minor)})
	}
	code := verdictCode(r.Allow)
	for _, t := range slices.Backward(tests) {
		const instruction = 8
		code = slices.Concat(t.before, ins(t.op, t.reg, 0, int16(len(code)/instruction), t.value), code)
	}
	return code
}

func accessBits(s string) (bits int32) {
	if s == "" {
		s = "rwm"
	}
	for letter, bit := range map[string]int32{"m": unix.BPF_DEVCG_ACC_MKNOD, "r": unix.BPF_DEVCG_ACC_READ, "w": unix.BPF_DEVCG_ACC_WRITE} {
		if strings.Contains(s, letter) {
			bits |= bit
		}
	}
	return bits
}

// ins is one instruction, little endian.
func ins(op, dst, src byte, offset int16, value int32) []byte {
	b := []byte{op, src<<4 | dst}
	b = binary.LittleEndian.AppendUint16(b, uint16(offset))
	return binary.LittleEndian.AppendUint32(b, uint32(value))
}
