package command

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/gantryd/gantry/ociruntime"
)

var planCommand = command{
	name: "plan", args: "BUNDLE [OTHER]", least: 0, most: 2,
	about: "print the system calls by which create would make a container, and do nothing",
	flags: func(f *flags) action {
		bundle := f.text("bundle b", "DIR", "the bundle, in place of the argument", ".")
		asJSON := f.flag("json", "print JSON")
		diff := f.flag("diff", "print what differs between the plans of two bundles")
		noPivot := f.flag("no-pivot", "as of create")
		noNewKeyring := f.flag("no-new-keyring", "as of create")
		return func(s *session, args []string) (int, error) {
			if len(args) == 0 {
				args = []string{*bundle}
			}
			if *diff != (len(args) == 2) {
				return 1, errors.New("plan: --diff goes with two bundles")
			}
			var plans []*ociruntime.Plan
			var dirs []string
			for _, dir := range args {
				dir, err := filepath.Abs(dir)
				if err != nil {
					return 1, err
				}
				p, err := ociruntime.Preview(ociruntime.CreateOptions{
					ID: "ID", Bundle: dir, Root: s.root, Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr,
					SystemdCgroup: s.systemdCgroup, NoCgroup: s.noCgroup, NoPivot: *noPivot, NoNewKeyring: *noNewKeyring,
				})
				if err != nil {
					return 1, err
				}
				plans, dirs = append(plans, p), append(dirs, dir)
			}
			switch {
			case *diff:
				return printDiff(s.stdout, plans, dirs, *asJSON)
			case *asJSON:
				return 0, printJSON(s.stdout, plans[0])
			}
			plans[0].Print(s.stdout)
			return 0, nil
		}
	},
}

// printDiff prints how two plans differ. The exit code is 1 when they do, as of
// diff(1).
func printDiff(w io.Writer, plans []*ociruntime.Plan, dirs []string, asJSON bool) (code int, err error) {
	d := diff(planLines(plans[0], dirs[0]), planLines(plans[1], dirs[1]))
	if len(d) > 0 {
		code = 1
	}
	if asJSON {
		return code, printJSON(w, d)
	}
	if len(d) > 0 {
		fmt.Fprintf(w, "--- %s\n+++ %s\n", dirs[0], dirs[1])
	}
	stage := ""
	for _, c := range d {
		if c.Stage != stage {
			stage = c.Stage
			fmt.Fprintf(w, "# %s\n", stage)
		}
		fmt.Fprintf(w, "%s %s\n", c.Sign, c.Text)
	}
	return code, nil
}

// line is one line of a plan.
type line struct{ stage, text string }

// planLines are the lines of p without what differs always: where the bundle is,
// and the numbers of steps, registers and descriptors, which shift.
func planLines(p *ociruntime.Plan, bundle string) []line {
	numbers := regexp.MustCompile(`(\$|\bfd )[0-9]+`)
	var lines []line
	add := func(stage, text string) {
		text = numbers.ReplaceAllString(text, "${1}n")
		lines = append(lines, line{strings.ReplaceAll(stage, bundle, "BUNDLE"), strings.ReplaceAll(text, bundle, "BUNDLE")})
	}
	add("the parent clones", strings.Join(p.Namespaces(), "|"))
	for _, f := range p.Files {
		add("the parent opens", f.String())
	}
	for _, s := range p.Steps {
		s := *s
		s.Then, s.Else = 0, 0
		add(strings.TrimSpace(s.Name+" "+s.Path), s.String())
	}
	return lines
}

// change is a line that only one of two plans has.
type change struct {
	Sign  string `json:"sign"` // "-" or "+"
	Stage string `json:"stage"`
	Text  string `json:"text"`
}

// diff is the shortest way from a to b: the lines outside of their longest
// common subsequence.
func diff(a, b []line) []change {
	// common[i][j] is its length for a[i:] and b[j:].
	common := make([][]int, len(a)+1)
	for i := range common {
		common[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	d := []change{}
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			d = append(d, change{"-", a[i].stage, a[i].text})
			i++
		default:
			d = append(d, change{"+", b[j].stage, b[j].text})
			j++
		}
	}
	return d
}
