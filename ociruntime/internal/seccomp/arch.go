package seccomp

import (
	"fmt"
	"maps"
	"runtime"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// x32 marks the calls of the x32 ABI, which has x86-64's AUDIT_ARCH.
const x32 = 0x40000000

// arch is one ABI that programs on this machine may use.
type arch struct {
	audit  uint32 // AUDIT_ARCH_* (linux/audit.h)
	wide   bool   // arguments have 64 bits
	first  uint32 // what the numbers of its calls begin with
	number func(name string) (uint32, bool)
}

func table(calls map[string]uint32) func(string) (uint32, bool) {
	return func(name string) (uint32, bool) { n, ok := calls[name]; return n, ok }
}

// abis are the architectures that run on each of ours.
func abis() map[specs.Arch]arch {
	if runtime.GOARCH == "arm64" {
		return map[specs.Arch]arch{
			specs.ArchAARCH64: {audit: 0xc00000b7, wide: true, number: table(callsARM64)},
			specs.ArchARM:     {audit: 0x40000028, number: table(callsARM)},
		}
	}
	return map[specs.Arch]arch{
		specs.ArchX86_64: {audit: 0xc000003e, wide: true, number: table(callsAMD64)},
		specs.ArchX86:    {audit: 0x40000003, number: table(calls386)},
		specs.ArchX32:    {audit: 0xc000003e, wide: true, first: x32, number: x32Number},
	}
}

// x32Calls have a number of their own in the x32 ABI (arch/x86/entry/syscalls/syscall_64.tbl).
var x32Calls = []string{
	"rt_sigaction", "rt_sigreturn", "ioctl", "readv", "writev", "recvfrom", "sendmsg", "recvmsg",
	"execve", "ptrace", "rt_sigpending", "rt_sigtimedwait", "rt_sigqueueinfo", "sigaltstack",
	"timer_create", "mq_notify", "kexec_load", "waitid", "set_robust_list", "get_robust_list",
	"vmsplice", "move_pages", "preadv", "pwritev", "rt_tgsigqueueinfo", "recvmmsg", "sendmmsg",
	"process_vm_readv", "process_vm_writev", "setsockopt", "getsockopt", "io_setup", "io_submit",
	"execveat", "preadv2", "pwritev2",
}

func x32Number(name string) (uint32, bool) {
	if i := slices.Index(x32Calls, name); i >= 0 {
		return x32 | uint32(512+i), true
	}
	n, ok := callsAMD64[name]
	return x32 | n, ok
}

// native is the architecture of this build.
func native() specs.Arch {
	if runtime.GOARCH == "arm64" {
		return specs.ArchAARCH64
	}
	return specs.ArchX86_64
}

// foreign are architectures that the specification knows and this machine
// cannot run: their rules have no effect.
var foreign = []specs.Arch{
	specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
	specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64,
	specs.ArchMIPSEL64N32, specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390,
	specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64,
	specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
}

// choose says which ABIs the filter covers: ours always, and those of the list.
func choose(list []specs.Arch) ([]arch, error) {
	ours := abis()
	names := map[specs.Arch]bool{native(): true}
	for _, a := range list {
		if !slices.Contains(foreign, a) {
			return nil, fmt.Errorf("architecture %q is unknown", a)
		}
		if _, ok := ours[a]; ok {
			names[a] = true
		}
	}
	var chosen []arch
	for _, n := range slices.Sorted(maps.Keys(names)) {
		chosen = append(chosen, ours[n])
	}
	// x32 shares x86-64's AUDIT_ARCH and comes after it.
	slices.SortStableFunc(chosen, func(a, b arch) int { return int(int64(a.first) - int64(b.first)) })
	return chosen, nil
}

// Archs are the architectures that a filter of this build can cover.
func Archs() []string {
	var names []string
	for a := range abis() {
		names = append(names, string(a))
	}
	slices.Sort(names)
	return names
}

// socketCalls are the calls that 32-bit x86 also reaches through
// socketcall(2), numbered from 1.
var socketCalls = []string{
	"socket", "bind", "connect", "listen", "accept", "getsockname", "getpeername", "socketpair",
	"send", "recv", "sendto", "recvfrom", "shutdown", "setsockopt", "getsockopt", "sendmsg",
	"recvmsg", "accept4", "recvmmsg", "sendmmsg",
}
