package runtime

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What a test can come to.
const (
	pass = "pass"
	skip = "skip" // by the test's own decision
	fail = "fail"

	// Of the list only.
	none = "-"    // it never ran
	race = "race" // it comes to the one or the other
)

// expectation is a line of a list: what a test comes to on our runtime and on the
// control.
type expectation struct {
	ours, control string
	reason        string // why ours does not pass
}

// list is what a suite is expected to come to, by the name of the test.
type list struct {
	file  string
	tests map[string]expectation
}

// seen is what a run came to.
type seen struct {
	outcome string
	output  string // of a test that failed
}

// readList reads testdata/NAME.txt: lines of ours, control and the test's name; a
// reason in the indented line below. Comments begin with '#'.
func readList(t *testing.T, name string) list {
	t.Helper()
	l := list{filepath.Join("testdata", name+".txt"), map[string]expectation{}}
	data, err := os.ReadFile(l.file)
	if err != nil {
		t.Fatal(err)
	}
	last := ""
	for line := range strings.Lines(string(data)) {
		line = strings.TrimRight(line, "\n")
		if reason, ok := strings.CutPrefix(line, "\t"); ok {
			e := l.tests[last]
			e.reason = reason
			l.tests[last] = e
			continue
		}
		f := strings.SplitN(line, " ", 3)
		if line == "" || line[0] == '#' || len(f) < 3 {
			continue
		}
		last = f[2]
		l.tests[last] = expectation{ours: f[0], control: f[1]}
	}
	return l
}

// check compares a run with the list. Only tests for which ran is true had to run.
func (l list) check(t *testing.T, control bool, got map[string]seen, ran func(name string) bool) {
	t.Helper()
	if *update {
		l.update(t, control, got)
		return
	}
	count := map[string]int{}
	for name, s := range got {
		count[s.outcome]++
		if _, ok := l.tests[name]; !ok {
			t.Errorf("%s: not in %s", name, l.file)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.tests)) {
		e := l.tests[name]
		want := e.ours
		if control {
			want = e.control
		} else if want != pass && e.reason == "" {
			t.Errorf("%s: %s does not say why it is not passed", name, l.file)
		}
		s, ok := got[name]
		switch {
		case !ok && ran(name) && want != none:
			t.Errorf("%s: did not run", name)
		case !ok || s.outcome == want || want == none || want == race:
		case s.outcome == pass:
			t.Logf("%s: passes, and %s says %s", name, l.file, want)
		default:
			t.Errorf("%s: %s where %s is due\n%s", name, s.outcome, want, s.output)
		}
	}
	t.Logf("%d pass, %d fail, %d skip themselves", count[pass], count[fail], count[skip])
}

// update writes the list anew; reasons and races stay.
func (l list) update(t *testing.T, control bool, got map[string]seen) {
	for name, s := range got {
		e, ok := l.tests[name]
		if !ok {
			e = expectation{ours: none, control: none}
		}
		side := &e.ours
		if control {
			side = &e.control
		}
		if *side != race {
			*side = s.outcome
		}
		if e.ours == pass {
			e.reason = ""
		}
		l.tests[name] = e
		if s.outcome == fail {
			t.Logf("%s: %s\n%s", name, s.outcome, s.output)
		}
	}
	var b bytes.Buffer
	b.WriteString("# What each test comes to on gantry-runtime, and on the control.\n")
	for _, name := range slices.Sorted(maps.Keys(l.tests)) {
		e := l.tests[name]
		fmt.Fprintf(&b, "%s %s %s\n", e.ours, e.control, name)
		if e.reason != "" {
			fmt.Fprintf(&b, "\t%s\n", e.reason)
		}
	}
	if err := os.WriteFile(l.file, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}
