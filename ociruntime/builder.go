package ociruntime

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// builder writes a plan, step by step.
type builder struct {
	plan  *Plan
	name  string // of the steps that come next
	path  string
	marks []int // step that each label stands before; labels count from 1
}

func newBuilder(extra int) *builder {
	return &builder{plan: &Plan{FirstFD: 3 + extra, homes: map[Reg]home{}}}
}

// stage says what the next steps are for, and what they are done to.
func (b *builder) stage(name, path string) { b.name, b.path = name, path }

// call adds a step.
func (b *builder) call(call string, args ...Arg) *Step {
	s := &Step{Name: b.name, Path: b.path, Call: call, Args: args}
	b.plan.Steps = append(b.plan.Steps, s)
	return s
}

// aside says what the parent does.
func (b *builder) aside(format string, args ...any) {
	b.plan.Parent = append(b.plan.Parent, fmt.Sprintf(format, args...))
}

// open adds a step whose result is a descriptor.
func (b *builder) open(call string, args ...Arg) Reg {
	s := b.call(call, args...)
	s.Out = b.reg()
	return s.Out
}

func (b *builder) reg() Reg {
	b.plan.regs++
	return Reg(b.plan.regs)
}

// label makes a place that mark puts before the next step.
func (b *builder) label() label {
	b.marks = append(b.marks, -1)
	return label(len(b.marks))
}

func (b *builder) mark(l label) { b.marks[l-1] = len(b.plan.Steps) }

// file adds a descriptor that the parent opens, and is its number.
func (b *builder) file(f File) Arg {
	b.plan.Files = append(b.plan.Files, f)
	n := b.plan.FirstFD + len(b.plan.Files) - 1
	return Arg{num: uint64(n), text: "fd " + strconv.Itoa(n)}
}

// finish resolves the labels.
func (b *builder) finish() *Plan {
	for i, s := range b.plan.Steps {
		s.Then = b.target(s.then, i)
		s.Else = b.target(s.other, i)
	}
	return b.plan
}

func (b *builder) target(l label, at int) int {
	if l == 0 || b.marks[l-1] == at+1 {
		return 0
	}
	return b.marks[l-1]
}

// fine says that these errnos are no failure: the table goes on.
func (s *Step) fine(errnos ...unix.Errno) *Step {
	for _, e := range errnos {
		if e > 63 {
			panic(fmt.Sprintf("errno %d does not fit the machine's mask", e))
		}
		s.On = append(s.On, int(e))
	}
	return s
}

// orElse says that these errnos are no failure and lead to l.
func (s *Step) orElse(l label, errnos ...unix.Errno) *Step {
	s.other = l
	return s.fine(errnos...)
}

// goTo says where success leads.
func (s *Step) goTo(l label) *Step {
	s.then = l
	return s
}

func num(n int) Arg { return Arg{num: uint64(n), text: strconv.Itoa(n)} }

func hex(n uint64) Arg { return Arg{num: n, text: "0x" + strconv.FormatUint(n, 16)} }

func octal(n uint32) Arg { return Arg{num: uint64(n), text: "0" + strconv.FormatUint(uint64(n), 8)} }

// named is a number that the plan prints by name.
func named[T ~int | ~uint | ~uint32 | ~uint64](n T, name string) Arg {
	return Arg{num: uint64(n), text: name}
}

func reg(r Reg) Arg { return Arg{reg: r} }

func null() Arg { return Arg{text: "NULL"} }

// cwd is AT_FDCWD.
func cwd() Arg { n := unix.AT_FDCWD; return named(n, "AT_FDCWD") }

func str(s string) Arg {
	return Arg{text: strconv.Quote(s), data: &blob{bytes: append([]byte(s), 0)}}
}

// raw is the address of bytes, which the plan prints as text.
func raw(b []byte, text string) Arg { return Arg{text: text, data: &blob{bytes: b}} }

// strs is the address of a NULL-terminated array of strings.
func strs(list []string) Arg {
	b := &blob{bytes: make([]byte, 8*(len(list)+1))}
	quoted := make([]string, len(list))
	for i, s := range list {
		b.relocs = append(b.relocs, reloc{8 * i, &blob{bytes: append([]byte(s), 0)}})
		quoted[i] = strconv.Quote(s)
	}
	return Arg{text: "[" + strings.Join(quoted, " ") + "]", data: b}
}

// words is the address of 64-bit words.
func words(text string, w ...uint64) Arg {
	var b []byte
	for _, v := range w {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return raw(b, text)
}

// how is a struct open_how (openat2(2)) and its size.
func how(flags int, mode uint32, resolve uint64) (Arg, Arg) {
	names := append(flagNames(uint64(flags), openFlags), flagNames(resolve, resolveFlags)...)
	return words(strings.Join(names, "|"), uint64(flags), uint64(mode), resolve), num(24)
}

// assemble lays the plan out as the data of the child's image.
func (p *Plan) assemble(status int) ([]byte, error) {
	a := assembler{at: map[*blob]uint64{}}
	regs := header + len(p.Steps)*stepSize
	a.out = make([]byte, regs+8*(p.regs+1))
	for _, s := range p.Steps {
		for _, arg := range s.Args {
			a.place(arg.data)
		}
	}
	for _, h := range p.homes {
		a.place(h.data)
	}
	regAddr := func(r Reg) uint64 {
		if h, ok := p.homes[r]; ok {
			return a.at[h.data] + uint64(h.off)
		}
		return dataBase + uint64(regs) + 8*uint64(r)
	}
	binary.LittleEndian.PutUint64(a.out, uint64(status))
	for i, s := range p.Steps {
		if err := a.step(i, s, regAddr); err != nil {
			return nil, err
		}
	}
	return a.out, nil
}

type assembler struct {
	out []byte
	at  map[*blob]uint64 // address of what is placed
}

// place puts a blob, and what it points to, into the data.
func (a *assembler) place(b *blob) {
	if b == nil || a.at[b] != 0 {
		return
	}
	for _, r := range b.relocs {
		a.place(r.to)
	}
	for len(a.out)%8 != 0 {
		a.out = append(a.out, 0)
	}
	off := len(a.out)
	a.at[b] = dataBase + uint64(off)
	a.out = append(a.out, b.bytes...)
	for _, r := range b.relocs {
		binary.LittleEndian.PutUint64(a.out[off+r.off:], a.at[r.to])
	}
}

func (a *assembler) step(i int, s *Step, regAddr func(Reg) uint64) error {
	nr, ok := callNumbers[s.Call]
	if !ok {
		return fmt.Errorf("assemble the plan: no system call %q", s.Call)
	}
	if len(s.Args) > 6 {
		return fmt.Errorf("assemble the plan: %s takes %d arguments", s.Call, len(s.Args))
	}
	w := [stepSize / 8]uint64{0: uint64(nr), 8: regAddr(s.Out), 12: uint64(s.Min)}
	for j, arg := range s.Args {
		switch {
		case arg.reg != 0:
			w[1+j] = regAddr(arg.reg)
			w[7] |= 1 << j
		case arg.data != nil:
			w[1+j] = a.at[arg.data]
		default:
			w[1+j] = arg.num
		}
	}
	w[9], w[10] = stepAddr(next(s.Then, i)), stepAddr(next(s.Else, i))
	for _, e := range s.On {
		w[11] |= 1 << e
	}
	for j, v := range w {
		binary.LittleEndian.PutUint64(a.out[header+i*stepSize+8*j:], v)
	}
	return nil
}

func next(to, i int) int {
	if to == 0 {
		return i + 1
	}
	return to
}

func stepAddr(i int) uint64 { return dataBase + header + uint64(i)*stepSize }

// stepIndex undoes stepAddr.
func stepIndex(addr uint64) int { return int((addr - dataBase - header) / stepSize) }
