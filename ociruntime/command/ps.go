package command

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/gantryd/gantry/ociruntime"
)

var psCommand = command{
	name: "ps", args: "CONTAINER [FLAGS OF ps(1)]", least: 1, most: -1, foreign: true,
	about: "list the processes of a container",
	flags: func(f *flags) action {
		format := f.text("format f", "FORMAT", "'table' or 'json'", "table")
		return func(s *session, args []string) (int, error) {
			if err := checkFormat(*format); err != nil {
				return 1, err
			}
			return with(func(s *session, c *ociruntime.Container) error {
				pids, err := c.Pids()
				if err != nil {
					return err
				}
				if *format == "json" {
					slices.Sort(pids)
					return printJSON(s.stdout, slices.Concat([]int{}, pids))
				}
				return psTable(s.stdout, pids, args[1:])
			})(s, args)
		}
	},
}

// psTable runs ps(1) on the host and prints the lines of these processes.
func psTable(w io.Writer, pids []int, args []string) error {
	if len(args) == 0 {
		args = []string{"-ef"}
	}
	out, err := exec.Command("ps", args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("run ps %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	} else if err != nil {
		return fmt.Errorf("run ps: %w", err)
	}
	lines := strings.SplitAfter(string(out), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return fmt.Errorf("run ps %s: its output has no column PID", strings.Join(args, " "))
	}
	for i, line := range lines {
		fields := strings.Fields(line)
		if i > 0 {
			if len(fields) <= column {
				continue
			}
			if pid, err := strconv.Atoi(fields[column]); err != nil || !slices.Contains(pids, pid) {
				continue
			}
		}
		if _, err := io.WriteString(w, line); err != nil {
			return err
		}
	}
	return nil
}
