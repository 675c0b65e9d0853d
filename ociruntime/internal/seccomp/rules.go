package seccomp

import (
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// rule is one way to a verdict on a call: all conditions hold.
type rule struct {
	call    uint32
	conds   []specs.LinuxSeccompArg
	verdict uint32
}

// collect gathers the rules, by the number that their call has in a and in the
// order of the profile. Rules that come to the default verdict say nothing. A
// rule without conditions decides, before or after others that have some (as
// libseccomp has it).
func collect(s *specs.LinuxSeccomp, a arch, def uint32) ([]rule, error) {
	const most = 512 // calls of an architecture
	rules := make([]rule, 0, most)
	for i, call := range s.Syscalls {
		v, err := action(call.Action, call.ErrnoRet)
		if err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		if err := checkArgs(call.Args); err != nil {
			return nil, fmt.Errorf("syscalls[%d]: %w", i, err)
		}
		if v == def {
			continue
		}
		ways := alternatives(call.Args)
		for _, name := range call.Names {
			for _, alt := range ways {
				rules = add(rules, a, name, rule{conds: alt, verdict: v})
			}
		}
	}
	return byCall(rules), nil
}

// byCall sorts rules by their calls, and leaves those of one call as they come.
func byCall(rules []rule) []rule {
	keys := make([]uint64, len(rules))
	for i, r := range rules {
		keys[i] = uint64(r.call)<<32 | uint64(i)
	}
	slices.Sort(keys)
	sorted := make([]rule, len(rules))
	for i, k := range keys {
		sorted[i] = rules[uint32(k)]
	}
	return sorted
}

func add(rules []rule, a arch, name string, r rule) []rule {
	n, ok := a.number(name)
	if ok {
		r.call = n
		rules = append(rules, r)
	}
	if a.audit != 0x40000003 || len(r.conds) > 0 {
		return rules
	}
	// socketcall(2) has the real call in its first argument.
	if i := slices.Index(socketCalls, name); i >= 0 {
		sc, _, _ := find(calls386, "socketcall")
		cond := specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: uint64(i + 1)}
		rules = append(rules, rule{sc, []specs.LinuxSeccompArg{cond}, r.verdict})
	}
	return rules
}

// alternatives are the conditions of one rule, all of which must hold; where
// one argument is named twice they are alternatives (as runc has it).
func alternatives(args []specs.LinuxSeccompArg) [][]specs.LinuxSeccompArg {
	seen := map[uint]bool{}
	for _, a := range args {
		if seen[a.Index] {
			var each [][]specs.LinuxSeccompArg
			for _, a := range args {
				each = append(each, []specs.LinuxSeccompArg{a})
			}
			return each
		}
		seen[a.Index] = true
	}
	return [][]specs.LinuxSeccompArg{args}
}

// operators compare an argument.
var operators = []specs.LinuxSeccompOperator{
	specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo,
	specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual,
}

func checkArgs(args []specs.LinuxSeccompArg) error {
	for _, a := range args {
		if a.Index > 5 {
			return fmt.Errorf("argument %d: a system call has six, from 0", a.Index)
		}
		if !slices.Contains(operators, a.Op) {
			return fmt.Errorf("operator %q is unknown", a.Op)
		}
	}
	return nil
}

// span is a range of numbers, from first up to the next span, with one verdict.
type span struct {
	first uint32
	code  []Ins
}

// body is the filter of one architecture, with the number of the call in A.
func body(a arch, rules []rule, def uint32) []Ins {
	end := a.first // the first number that the profile cannot have known
	spans := make([]span, 0, len(rules))
	defaults := []Ins{{Code: ret, K: def}}
	cover := func(first uint32, code []Ins) {
		if len(spans) > 0 && slices.Equal(spans[len(spans)-1].code, code) {
			return
		}
		spans = append(spans, span{first, code})
	}
	for i := 0; i < len(rules); {
		n, first := rules[i].call, i
		for ; i < len(rules) && rules[i].call == n; i++ {
		}
		if n > end {
			cover(end, defaults)
		}
		cover(n, verdict(a, rules[first:i], def))
		end = n + 1
	}
	cover(end, []Ins{{Code: ret, K: unknown(def)}})
	return tree(make([]Ins, 0, size(spans)), spans)
}

// unknown is the verdict for calls newer than every call that the profile
// names: where it would refuse them, a C library must be told ENOSYS to fall
// back to an older call.
func unknown(def uint32) uint32 {
	if def&^0xffff == retErrno {
		return retErrno | uint32(unix.ENOSYS)
	}
	return def
}

// tree halves the spans until one is left, and appends the code to prog.
func tree(prog []Ins, spans []span) []Ins {
	if len(spans) == 1 {
		return append(prog, spans[0].code...)
	}
	mid := len(spans) / 2
	low := size(spans[:mid])
	prog = append(prog, branch(spans[mid].first, low)...)
	return tree(tree(prog, spans[:mid]), spans[mid:])
}

// size is how many instructions tree makes of spans.
func size(spans []span) int {
	if len(spans) == 1 {
		return len(spans[0].code)
	}
	mid := len(spans) / 2
	low := size(spans[:mid])
	return len(branch(spans[mid].first, low)) + low + size(spans[mid:])
}

// verdict is the code that decides one call.
func verdict(a arch, rules []rule, def uint32) []Ins {
	for _, r := range rules {
		if len(r.conds) == 0 {
			return []Ins{{Code: ret, K: r.verdict}}
		}
	}
	code := []Ins{{Code: ret, K: def}}
	for _, r := range slices.Backward(rules) {
		code = append(match(a, r), code...)
	}
	return code
}

// match is the code of one rule; where a condition fails it goes on below it.
func match(a arch, r rule) []Ins {
	code := []Ins{{Code: ret, K: r.verdict}}
	for _, c := range slices.Backward(r.conds) {
		code = append(compare(a, c, len(code)), code...)
	}
	return code
}

// compare goes on below where the condition holds, and else over n more
// instructions. A word is compared at a time, the high one first.
func compare(a arch, c specs.LinuxSeccompArg, n int) []Ins {
	lo := Ins{Code: load, K: offArgs + 8*uint32(c.Index)}
	hi := Ins{Code: load, K: lo.K + 4}
	vlo, vhi := uint32(c.Value), uint32(c.Value>>32)
	no := uint8(n)
	switch c.Op {
	case specs.OpEqualTo, specs.OpMaskedEqual:
		mlo, mhi := uint32(1<<32-1), uint32(1<<32-1)
		if c.Op == specs.OpMaskedEqual {
			mlo, mhi = vlo, vhi
			vlo, vhi = uint32(c.ValueTwo), uint32(c.ValueTwo>>32)
		}
		code := []Ins{lo, {Code: and, K: mlo}, {Code: jumpEQ, K: vlo, JF: no}}
		if !a.wide {
			return code
		}
		return append([]Ins{hi, {Code: and, K: mhi}, {Code: jumpEQ, K: vhi, JF: no + 3}}, code...)
	case specs.OpNotEqual:
		code := []Ins{lo, {Code: jumpEQ, K: vlo, JT: no}}
		if !a.wide {
			return code
		}
		return append([]Ins{hi, {Code: jumpEQ, K: vhi, JF: 2}}, code...)
	case specs.OpGreaterEqual, specs.OpGreaterThan:
		op := uint16(jumpGE)
		if c.Op == specs.OpGreaterThan {
			op = jumpGT
		}
		code := []Ins{lo, {Code: op, K: vlo, JF: no}}
		if !a.wide {
			return code
		}
		return append([]Ins{hi, {Code: jumpGT, K: vhi, JT: 3}, {Code: jumpEQ, K: vhi, JF: no + 2}}, code...)
	default: // less than, less or equal: the other two turned round
		op := uint16(jumpGE)
		if c.Op == specs.OpLessEqual {
			op = jumpGT
		}
		code := []Ins{lo, {Code: op, K: vlo, JT: no}}
		if !a.wide {
			return code
		}
		return append([]Ins{hi, {Code: jumpGT, K: vhi, JT: no + 3}, {Code: jumpEQ, K: vhi, JF: 2}}, code...)
	}
}
