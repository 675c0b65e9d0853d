package runtime

import (
	"context"
	"errors"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// onTerminal is a shell's command on a terminal, which runc's own runs of its suite
// have too.
func onTerminal(ctx context.Context, command string) *exec.Cmd {
	return exec.CommandContext(ctx, "script", "-q", "-e", "-c", command, "/dev/null")
}

// output runs a command that prints TAP, whatever its exit code.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	// Nothing is typed, and the end is not either.
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	cmd.WaitDelay = time.Second // for what a suite leaves running
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("%s: %v: %s", cmd, err, out)
	}
	return strings.ReplaceAll(string(out), "\r\n", "\n")
}

var tapLine = regexp.MustCompile(`^(not )?ok \d+ ?(?:- )?(.*?)(?: ?# ?(?i:skip)(.*))?$`)

// readTAP reads the outcome of each test of a TAP stream (testanything.org), whose
// names are given the prefix.
func readTAP(prefix, out string) map[string]seen {
	all := map[string]seen{}
	last := ""
	for line := range strings.Lines(out) {
		line = strings.TrimRight(line, "\n")
		m := tapLine.FindStringSubmatch(line)
		if m == nil {
			if s, ok := all[last]; ok && s.outcome == fail {
				s.output += line + "\n"
				all[last] = s
			}
			continue
		}
		last = prefix + m[2]
		switch {
		case m[1] != "":
			all[last] = seen{outcome: fail}
		case strings.Contains(strings.ToLower(line), "# skip") || strings.Contains(line, "#SKIP"):
			all[last] = seen{outcome: skip}
		default:
			all[last] = seen{outcome: pass}
		}
	}
	return all
}
