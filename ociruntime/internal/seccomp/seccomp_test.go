package seccomp

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"testing"

	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// filter is a program that can be asked.
type filter struct {
	t  *testing.T
	vm *bpf.VM
}

func compile(t *testing.T, s *specs.LinuxSeccomp) filter {
	t.Helper()
	prog, _, err := Compile(s)
	if err != nil {
		t.Fatal(err)
	}
	var list []bpf.Instruction
	for _, in := range prog {
		list = append(list, bpf.RawInstruction{Op: in.Code, Jt: in.JT, Jf: in.JF, K: in.K}.Disassemble())
	}
	vm, err := bpf.NewVM(list)
	if err != nil {
		t.Fatal(err)
	}
	return filter{t, vm}
}

// ask is what the filter says of a call. The interpreter reads words as the
// network has them, the kernel as the machine has.
func (f filter) ask(audit, number uint32, args [6]uint64) uint32 {
	f.t.Helper()
	data := make([]byte, 64)
	be := binary.BigEndian
	be.PutUint32(data[offNumber:], number)
	be.PutUint32(data[offArch:], audit)
	for i, a := range args {
		be.PutUint32(data[offArgs+8*i:], uint32(a))
		be.PutUint32(data[offArgs+8*i+4:], uint32(a>>32))
	}
	n, err := f.vm.Run(data)
	if err != nil {
		f.t.Fatal(err)
	}
	return uint32(n)
}

// dockerProfile is docker's profile for a container without further rights.
func dockerProfile(t *testing.T) *specs.LinuxSeccomp {
	t.Helper()
	s, err := profiles.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every call of docker's profile, and every number up to the first that no
// profile knows, gets the verdict that the profile says, on every ABI.
func TestDockersProfile(t *testing.T) {
	s := dockerProfile(t)
	f := compile(t, s)
	if prog, _, _ := Compile(s); len(prog) > 1000 {
		t.Errorf("the filter has %d instructions", len(prog))
	}
	asked := 0
	for name, a := range abis() {
		var known []uint32
		names := map[uint32][]string{}
		for _, c := range s.Syscalls {
			for _, n := range c.Names {
				if number, ok := a.number(n); ok {
					names[number] = append(names[number], n)
					known = append(known, number)
				}
			}
		}
		for number := a.first; number <= slices.Max(known); number++ {
			for _, args := range argumentsFor(s) {
				want := say(s, a, names[number], args)
				if number == socketcall386() && name == specs.ArchX86 {
					continue // TestSocketcall
				}
				if got := f.ask(a.audit, number, args); got != want {
					t.Fatalf("%s: call %d %v with %x: %#x, want %#x", name, number, names[number], args, got, want)
				}
				asked++
			}
		}
		if got := f.ask(a.audit, slices.Max(known)+1, [6]uint64{}); got != retErrno|uint32(unix.ENOSYS) {
			t.Errorf("%s: a call of the future: %#x, want ENOSYS", name, got)
		}
	}
	if asked < 10000 {
		t.Errorf("only %d questions", asked)
	}
	if got := f.ask(0x12345678, 0, [6]uint64{}); got != retKillProcess {
		t.Errorf("another architecture: %#x", got)
	}
}

// say reads the profile as its words say: a rule without conditions decides,
// else the first whose conditions hold.
func say(s *specs.LinuxSeccomp, a arch, names []string, args [6]uint64) uint32 {
	def, _ := action(s.DefaultAction, s.DefaultErrnoRet)
	verdict, found := def, false
	for _, c := range s.Syscalls {
		if !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(c.Names, n) }) {
			continue
		}
		v, _ := action(c.Action, c.ErrnoRet)
		switch {
		case v == def:
		case len(c.Args) == 0:
			return v
		case !found && holds(a, c.Args, args):
			verdict, found = v, true
		}
	}
	return verdict
}

func holds(a arch, conds []specs.LinuxSeccompArg, args [6]uint64) bool {
	for _, c := range conds {
		v, want, two := args[c.Index], c.Value, c.ValueTwo
		if !a.wide {
			v, want, two = v&0xffffffff, want&0xffffffff, two&0xffffffff
		}
		ok := map[specs.LinuxSeccompOperator]bool{
			specs.OpNotEqual: v != want, specs.OpEqualTo: v == want,
			specs.OpLessThan: v < want, specs.OpLessEqual: v <= want,
			specs.OpGreaterThan: v > want, specs.OpGreaterEqual: v >= want,
			specs.OpMaskedEqual: v&want == two,
		}[c.Op]
		if !ok {
			return false
		}
	}
	return true
}

// argumentsFor are arguments at and around every value that the profile names.
func argumentsFor(s *specs.LinuxSeccomp) [][6]uint64 {
	seen := map[uint64]bool{0: true, 1<<64 - 1: true}
	for _, c := range s.Syscalls {
		for _, a := range c.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo} {
				for _, v := range []uint64{v, v - 1, v + 1, v | 1<<32, v &^ (1<<32 - 1)} {
					seen[v] = true
				}
			}
		}
	}
	var list [][6]uint64
	for _, v := range slices.Sorted(maps.Keys(seen)) {
		list = append(list, [6]uint64{v, v, v, v, v, v})
	}
	return list
}

// Every operator, at every edge, on words of 32 and 64 bits.
func TestOperators(t *testing.T) {
	edges := []uint64{0, 1, 2, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 1, 1 << 63, 1<<64 - 1}
	for _, op := range operators {
		for _, value := range edges {
			for _, two := range []uint64{0, 1, 1 << 32} {
				cond := []specs.LinuxSeccompArg{{Index: 2, Op: op, Value: value, ValueTwo: two}}
				s := &specs.LinuxSeccomp{
					DefaultAction: specs.ActErrno,
					Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86},
					Syscalls:      []specs.LinuxSyscall{{Names: []string{"personality"}, Action: specs.ActAllow, Args: cond}},
				}
				f := compile(t, s)
				for name, a := range abis() {
					if name == specs.ArchX32 {
						continue
					}
					number, _ := a.number("personality")
					for _, arg := range edges {
						args := [6]uint64{2: arg}
						want := uint32(retErrno | uint32(unix.EPERM))
						if holds(a, cond, args) {
							want = retAllow
						}
						if got := f.ask(a.audit, number, args); got != want {
							t.Fatalf("%s: %#x %s %#x %#x: %#x, want %#x", name, arg, op, value, two, got, want)
						}
					}
				}
			}
		}
	}
}

func TestSocketcall(t *testing.T) {
	if _, ok := abis()[specs.ArchX86]; !ok {
		t.Skip("this machine runs no 32-bit x86 programs")
	}
	errno := uint(7)
	s := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86},
		Syscalls: []specs.LinuxSyscall{{Names: []string{"connect"}, Action: specs.ActErrno, ErrnoRet: &errno}},
	}
	f := compile(t, s)
	audit := abis()[specs.ArchX86].audit
	for call, want := range map[uint64]uint32{3: retErrno | 7, 1: retAllow} {
		if got := f.ask(audit, socketcall386(), [6]uint64{call}); got != want {
			t.Errorf("socketcall(%d): %#x, want %#x", call, got, want)
		}
	}
}

// A call by the x32 ABI must not pass as one of x86-64 that is allowed.
func TestX32IsNotAWayRound(t *testing.T) {
	if native() != specs.ArchX86_64 {
		t.Skip("x32 is an ABI of x86-64")
	}
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"ptrace"}, Action: specs.ActErrno}}}
	if got := compile(t, s).ask(0xc000003e, x32|uint32(unix.SYS_PTRACE), [6]uint64{}); got != retKillProcess {
		t.Errorf("x32 ptrace: %#x", got)
	}
}

func TestActions(t *testing.T) {
	errno := uint(99)
	for a, want := range map[specs.LinuxSeccompAction]uint32{
		specs.ActKill: 0, specs.ActKillThread: 0, specs.ActKillProcess: 0x80000000, specs.ActTrap: 0x30000,
		specs.ActErrno: 0x50063, specs.ActTrace: 0x7ff00063, specs.ActLog: 0x7ffc0000, specs.ActNotify: 0x7fc00000,
	} {
		s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: a, ErrnoRet: &errno}}}
		number, _ := abis()[native()].number("read")
		if got := compile(t, s).ask(abis()[native()].audit, number, [6]uint64{}); got != want {
			t.Errorf("%s: %#x, want %#x", a, got, want)
		}
	}
}

func TestWrongProfilesAreRefused(t *testing.T) {
	for want, s := range map[string]*specs.LinuxSeccomp{
		`defaultAction: action "X" is unknown`: {DefaultAction: "X"},
		`syscalls[0]: action "X" is unknown`:   {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: "X"}}},
		`architecture "X" is unknown`:          {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"X"}},
		`flag "X" is unknown`:                  {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}},
	} {
		if _, _, err := Compile(s); fmt.Sprint(err) != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func BenchmarkCompileDockersProfile(b *testing.B) {
	s, err := profiles.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}

func socketcall386() uint32 {
	n, _, _ := find(calls386, "socketcall")
	return n
}

// With a listener the kernel refuses to synchronise threads (seccomp(2)), of which
// the child has one.
func TestThreadsAreNotSynchronised(t *testing.T) {
	_, flags, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"}})
	if err != nil || flags != 2 {
		t.Errorf("flags %d, %v", flags, err)
	}
}
