package ociruntime

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"golang.org/x/sys/unix"
)

// Plan is everything that is done to start a process: what the parent opens,
// how it clones, and the table of system calls that the child goes through.
// It is data: making it needs no privilege and touches nothing.
type Plan struct {
	Files []File  `json:"files"`          // the child's descriptors from FirstFD up
	Clone uint64  `json:"-"`              // namespaces made at the clone, CLONE_NEW*
	CPUs  string  `json:"cpus,omitempty"` // processors that the clone is made on; "" is all
	Steps []*Step `json:"steps"`
	// Parent is what the parent does meanwhile, to the child that waits.
	Parent []string `json:"parent,omitempty"`

	// FirstFD is the number of Files[0]: 3, and one more for each extra file.
	FirstFD int `json:"firstFd"`
	regs    int
	toMap   []File       // trees that the child opens and the parent maps the ids of, in order
	ambient []uintptr    // capabilities that the child keeps over its first execve
	cpuMask []byte       // CPUs, as the kernel has it
	homes   map[Reg]home // registers that live inside a piece of data
}

// home is a place inside a piece of data that takes a result.
type home struct {
	data *blob
	off  int
}

// File is a descriptor that the parent opens for the child.
type File struct {
	Name string `json:"name"`
	// Call is "open", "open_tree", "mknod", "fsmount", "later" where the child opens it, or "" for one that the parent has at hand,
	// whose Name is then all that is said of it.
	Call  string     `json:"call,omitempty"`
	Path  string     `json:"path,omitempty"`
	Flags int        `json:"flags,omitempty"`
	Attrs []treeAttr `json:"-"` // changes to a tree from open_tree, in order
	IDMap *idmap     `json:"-"` // and the id mapping it gets
	// Locked are changes that may take nothing away that a user namespace has to keep.
	Locked *unix.MountAttr `json:"-"`
	// What is opened must be this device, and of this filesystem (statfs(2)); 0 is any.
	Device uint64 `json:"device,omitempty"`
	Magic  int64  `json:"magic,omitempty"`
	Node   *node  `json:"-"` // to make (Call is "mknod")
	// CopyUp is what a tmpfs begins with (Call is "fsmount").
	CopyUp *copyUp `json:"-"`
}

// treeAttr is one mount_setattr(2).
type treeAttr struct {
	attr      unix.MountAttr
	recursive bool
}

// Step is one system call of the child.
type Step struct {
	Name  string `json:"name"`           // what it is for
	Path  string `json:"path,omitempty"` // the thing that it is done to
	Call  string `json:"call"`
	Args  []Arg  `json:"args"`
	Out   Reg    `json:"out,omitempty"`  // register that takes the result
	Min   int64  `json:"min,omitempty"`  // least result that is success
	Then  int    `json:"then,omitempty"` // index of the next step, 0 for the one below
	On    []int  `json:"on,omitempty"`   // errnos that are no failure …
	Else  int    `json:"else,omitempty"` // … and the step they lead to, 0 for the one below
	then  label  // resolved into Then
	other label  // resolved into Else
}

// Reg is a register: the result of one step, and an argument of later ones.
type Reg int

// label is a place in the table that a step can go on with.
type label int

// Arg is an argument of a step: a number, a register, or the address of data.
type Arg struct {
	text string
	num  uint64
	reg  Reg
	data *blob
}

// blob is data of the child: bytes, some of which are addresses of other blobs.
type blob struct {
	bytes  []byte
	relocs []reloc
}

type reloc struct {
	off int
	to  *blob
}

// String is the argument as the plan prints it.
func (a Arg) String() string {
	if a.reg != 0 {
		return fmt.Sprintf("$%d", a.reg)
	}
	return a.text
}

// MarshalJSON writes the argument as the plan prints it.
func (a Arg) MarshalJSON() ([]byte, error) { return json.Marshal(a.String()) }

// String is the step in one line.
func (s *Step) String() string {
	var b strings.Builder
	args := make([]string, len(s.Args))
	for i, a := range s.Args {
		args[i] = a.String()
	}
	fmt.Fprintf(&b, "%s(%s)", s.Call, strings.Join(args, ", "))
	if s.Out != 0 {
		fmt.Fprintf(&b, " = $%d", s.Out)
	}
	if s.Then != 0 {
		fmt.Fprintf(&b, "; then %d", s.Then)
	}
	if len(s.On) > 0 {
		names := make([]string, len(s.On))
		for i, e := range s.On {
			names[i] = errnoName(e)
		}
		fmt.Fprintf(&b, "; %s is fine", strings.Join(names, " "))
		if s.Else != 0 {
			fmt.Fprintf(&b, ": %d", s.Else)
		}
	}
	return b.String()
}

func errnoName(e int) string {
	if e == 0 {
		return "0"
	}
	return unix.ErrnoName(unix.Errno(e))
}

// Namespaces are those that the clone makes.
func (p *Plan) Namespaces() []string { return flagNames(p.Clone, cloneFlags) }

// MarshalJSON adds what the parent clones, by name.
func (p *Plan) MarshalJSON() ([]byte, error) {
	type plain Plan
	return json.Marshal(struct {
		*plain
		Clone []string `json:"clone"`
	}{(*plain)(p), p.Namespaces()})
}

// Print writes the plan for a reader.
func (p *Plan) Print(w io.Writer) {
	fmt.Fprintln(w, "# the parent opens")
	for i, f := range p.Files {
		fmt.Fprintf(w, "%4d  %s\n", p.FirstFD+i, f)
	}
	fmt.Fprintf(w, "# and clones: %s\n", strings.Join(p.Namespaces(), "|"))
	if p.CPUs != "" {
		fmt.Fprintf(w, "# on the processors %s\n", p.CPUs)
	}
	for _, line := range p.Parent {
		fmt.Fprintf(w, "# and %s\n", line)
	}
	fmt.Fprintln(w, "# the child calls")
	name, path := "", ""
	for i, s := range p.Steps {
		if s.Name != name || s.Path != path {
			name, path = s.Name, s.Path
			fmt.Fprintf(w, "      # %s\n", strings.TrimSpace(name+" "+path))
		}
		fmt.Fprintf(w, "%4d  %s\n", i, s)
	}
}

// tell has the log say what the plan is for, step by step.
func (p *Plan) tell(log *slog.Logger) {
	if p == nil || !log.Enabled(context.Background(), slog.LevelDebug) {
		return
	}
	last := ""
	for _, s := range p.Steps {
		if said := strings.TrimSpace(s.Name + " " + s.Path); said != last {
			log.Debug("plan: " + said)
			last = said
		}
		if s.Call == "seccomp" {
			log.Debug(fmt.Sprintf("seccomp filter flags: %d", s.Args[1].num)) // callers of runc know these words
		}
	}
}

// String is the descriptor in one line.
func (f File) String() string {
	if f.Call == "" {
		return f.Name
	}
	s := fmt.Sprintf("%s: %s(%q)", f.Name, f.Call, f.Path)
	for _, a := range f.Attrs {
		s += " " + describeAttr(a)
	}
	return s
}
