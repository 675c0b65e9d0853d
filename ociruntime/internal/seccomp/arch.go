package seccomp

import (
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"

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

// call is a system call of a table, which has them by name: a sorted table costs
// nothing at the start of a program, and a map a tenth of a millisecond.
type call struct {
	name   string
	number uint32
}

// table looks names up. Profiles have them in their order, mostly: the next one
// is looked for near the last.
func table(calls []call) func(string) (uint32, bool) {
	at := 0
	return func(name string) (uint32, bool) {
		const near = 4
		for i := at; i < min(at+near, len(calls)); i++ {
			if calls[i].name == name {
				at = i + 1
				return calls[i].number, true
			}
		}
		n, i, ok := find(calls, name)
		at = i
		return n, ok
	}
}

func find(calls []call, name string) (number uint32, at int, ok bool) {
	at, ok = slices.BinarySearchFunc(calls, name, func(c call, name string) int { return strings.Compare(c.name, name) })
	if ok {
		number = calls[at].number
	}
	return number, at, ok
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
		specs.ArchX32:    {audit: 0xc000003e, wide: true, first: x32, number: x32Number()},
	}
}

// x32Calls have a number of their own in the x32 ABI (arch/x86/entry/syscalls/syscall_64.tbl).
var x32Calls = []call{
	{"execve", 520},
	{"execveat", 545},
	{"get_robust_list", 531},
	{"getsockopt", 542},
	{"io_setup", 543},
	{"io_submit", 544},
	{"ioctl", 514},
	{"kexec_load", 528},
	{"move_pages", 533},
	{"mq_notify", 527},
	{"preadv", 534},
	{"preadv2", 546},
	{"process_vm_readv", 539},
	{"process_vm_writev", 540},
	{"ptrace", 521},
	{"pwritev", 535},
	{"pwritev2", 547},
	{"readv", 515},
	{"recvfrom", 517},
	{"recvmmsg", 537},
	{"recvmsg", 519},
	{"rt_sigaction", 512},
	{"rt_sigpending", 522},
	{"rt_sigqueueinfo", 524},
	{"rt_sigreturn", 513},
	{"rt_sigtimedwait", 523},
	{"rt_tgsigqueueinfo", 536},
	{"sendmmsg", 538},
	{"sendmsg", 518},
	{"set_robust_list", 530},
	{"setsockopt", 541},
	{"sigaltstack", 525},
	{"timer_create", 526},
	{"vmsplice", 532},
	{"waitid", 529},
	{"writev", 516},
}

func x32Number() func(string) (uint32, bool) {
	shared := table(callsAMD64)
	return func(name string) (uint32, bool) {
		if n, _, ok := find(x32Calls, name); ok {
			return x32 | n, true
		}
		n, ok := shared(name)
		return x32 | n, ok
	}
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
