package command

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// flags are the flags of one command: those of the standard library, where a
// flag may have a second name ("bundle b"), with one dash or two.
type flags struct {
	*flag.FlagSet
	lines []string // of the help
}

func newFlags() *flags {
	f := &flags{FlagSet: flag.NewFlagSet(program, flag.ContinueOnError)}
	f.SetOutput(io.Discard)
	f.FlagSet.Usage = func() {}
	return f
}

// flag is a flag without a value.
func (f *flags) flag(names, about string) *bool {
	var v bool
	f.declare(names, "", about, func(name string) { f.BoolVar(&v, name, false, about) })
	return &v
}

// text is a flag with a value.
func (f *flags) text(names, value, about, def string) *string {
	var v string
	f.declare(names, value, about, func(name string) { f.StringVar(&v, name, def, about) })
	return &v
}

// number is a flag with a number that is not negative.
func (f *flags) number(names, value, about string) *uint {
	var v uint
	f.declare(names, value, about, func(name string) { f.UintVar(&v, name, 0, about) })
	return &v
}

// list is a flag that may be given several times.
func (f *flags) list(names, value, about string) *[]string {
	var v []string
	add := func(s string) error { v = append(v, s); return nil }
	f.declare(names, value, about, func(name string) { f.Func(name, about, add) })
	return &v
}

func (f *flags) declare(names, value, about string, define func(name string)) {
	var forms []string
	for _, name := range strings.Fields(names) {
		define(name)
		dashes := "--"
		if len(name) == 1 {
			dashes = "-"
		}
		forms = append(forms, dashes+name)
	}
	f.lines = append(f.lines, fmt.Sprintf("  %-32s %s", strings.TrimSpace(strings.Join(forms, ", ")+" "+value), about))
}

// given says whether the flag was on the command line.
func (f *flags) given(name string) (is bool) {
	f.Visit(func(g *flag.Flag) { is = is || g.Name == name })
	return is
}

// parse says what is wrong in the words of other tools.
func (f *flags) parse(args []string) error {
	err := f.Parse(args)
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return err
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: "); ok {
		return fmt.Errorf("unknown flag %s", name)
	}
	return errors.New(text)
}

// parseAll takes flags that stand after arguments as well, unless those are
// foreign, and returns the arguments.
func (f *flags) parseAll(args []string, foreign bool) (rest []string, err error) {
	for {
		if err := f.parse(args); err != nil || foreign {
			return f.Args(), err
		}
		left := f.Args()
		n := slices.IndexFunc(left, func(a string) bool { return len(a) > 1 && a[0] == '-' })
		ended := len(left) < len(args) && args[len(args)-len(left)-1] == "--"
		if n < 0 || ended {
			return append(rest, left...), nil
		}
		rest, args = append(rest, left[:n]...), left[n:]
	}
}

func (f *flags) print(w io.Writer) {
	for _, l := range f.lines {
		fmt.Fprintln(w, l)
	}
}
