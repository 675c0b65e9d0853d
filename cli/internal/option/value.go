// Package option turns the options of create and run into the body of POST
// /containers/create, in docker's words for what is wrong with them.
package option

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"

	"github.com/docker/go-units"
)

// List is an option that may be given many times.
type List struct {
	to    *[]string
	check func(string) (string, error)
}

// NewList appends what is given to to; check, if not nil, refuses or changes a value.
func NewList(to *[]string, check func(string) (string, error)) *List {
	return &List{to: to, check: check}
}

// Set appends one value.
func (l *List) Set(s string) error {
	if l.check != nil {
		var err error
		if s, err = l.check(s); err != nil {
			return err
		}
	}
	*l.to = append(*l.to, s)
	return nil
}

func (l *List) String() string { return "" }

// Type is the word for the value in help.
func (l *List) Type() string { return "list" }

// Map is an option key=value that may be given many times.
type Map struct {
	to    *map[string]string
	check func(string) (string, error)
}

// NewMap adds what is given to to.
func NewMap(to *map[string]string, check func(string) (string, error)) *Map {
	return &Map{to: to, check: check}
}

// Set adds one pair.
func (m *Map) Set(s string) error {
	if m.check != nil {
		var err error
		if s, err = m.check(s); err != nil {
			return err
		}
	}
	k, v, _ := strings.Cut(s, "=")
	if *m.to == nil {
		*m.to = map[string]string{}
	}
	(*m.to)[k] = v
	return nil
}

func (m *Map) String() string { return "" }

// Type is the word for the value in help.
func (m *Map) Type() string { return "map" }

// Bytes is a size: "64m", "1g", a plain number of bytes; -1 where Unlimited.
type Bytes struct {
	to        *int64
	unlimited bool
}

// NewBytes sets to; unlimited allows -1.
func NewBytes(to *int64, unlimited bool) *Bytes { return &Bytes{to: to, unlimited: unlimited} }

// Set reads the size.
func (b *Bytes) Set(s string) error {
	if b.unlimited && s == "-1" {
		*b.to = -1
		return nil
	}
	n, err := units.RAMInBytes(s)
	*b.to = n
	return err
}

func (b *Bytes) String() string {
	if b.to == nil || *b.to == 0 {
		return ""
	}
	if *b.to == -1 {
		return "-1"
	}
	return units.BytesSize(float64(*b.to))
}

// Type is the word for the value in help.
func (b *Bytes) Type() string { return "bytes" }

// CPUs is a number of processors with a fraction, kept in billionths.
type CPUs struct{ to *int64 }

// NewCPUs sets to.
func NewCPUs(to *int64) *CPUs { return &CPUs{to: to} }

// Set reads the number; more than nine decimals are refused.
func (c *CPUs) Set(s string) error {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		return fmt.Errorf("failed to parse %v as a rational number", s)
	}
	nano := r.Mul(r, big.NewRat(1e9, 1))
	if !nano.IsInt() {
		return fmt.Errorf("value is too precise")
	}
	*c.to = nano.Num().Int64()
	return nil
}

func (c *CPUs) String() string {
	if c.to == nil || *c.to == 0 {
		return ""
	}
	return big.NewRat(*c.to, 1e9).FloatString(3)
}

// Type is the word for the value in help.
func (c *CPUs) Type() string { return "decimal" }

// Uint16 is a small number whose zero is not printed as a default.
type Uint16 struct{ to *uint16 }

// NewUint16 sets to.
func NewUint16(to *uint16) *Uint16 { return &Uint16{to: to} }

// Set reads the number.
func (u *Uint16) Set(s string) error {
	n, err := strconv.ParseUint(s, 0, 16)
	*u.to = uint16(n)
	return err
}

func (u *Uint16) String() string { return "" }

// Type is the word for the value in help.
func (u *Uint16) Type() string { return "uint16" }

// Ulimits are resource limits NAME=SOFT[:HARD].
type Ulimits struct{ to *[]*units.Ulimit }

// NewUlimits appends to to.
func NewUlimits(to *[]*units.Ulimit) *Ulimits { return &Ulimits{to: to} }

// Set reads one limit; the last of a name wins.
func (u *Ulimits) Set(s string) error {
	l, err := units.ParseUlimit(s)
	if err != nil {
		return err
	}
	for i, have := range *u.to {
		if have.Name == l.Name {
			(*u.to)[i] = l
			return nil
		}
	}
	*u.to = append(*u.to, l)
	return nil
}

func (u *Ulimits) String() string { return "" }

// Type is the word for the value in help.
func (u *Ulimits) Type() string { return "ulimit" }

// Func is an option whose values are read by a function.
type Func struct {
	Word string // the word for the value in help
	Read func(string) error
}

// Set reads one value.
func (f Func) Set(s string) error { return f.Read(s) }

func (f Func) String() string { return "" }

// Type is the word for the value in help.
func (f Func) Type() string { return f.Word }
