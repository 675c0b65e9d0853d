package command

import (
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/gantryd/gantry/ociruntime"
)

var listCommand = command{
	name: "list", least: 0, most: 0,
	about: "list the containers below --root",
	flags: func(f *flags) action {
		quiet := f.flag("quiet q", "print ids only")
		format := f.text("format f", "FORMAT", "'table' or 'json'", "table")
		return func(s *session, _ []string) (int, error) {
			if err := checkFormat(*format); err != nil {
				return 1, err
			}
			if s.rootGiven {
				if _, err := os.Stat(s.root); err != nil {
					return 1, fmt.Errorf("--root: %w", err)
				}
			}
			states, err := s.states()
			if err != nil {
				return 1, err
			}
			return 0, s.printStates(states, *quiet, *format)
		}
	},
}

// checkFormat checks --format, which list and ps have.
func checkFormat(format string) error {
	if format != "table" && format != "json" {
		return fmt.Errorf("--format %q: table and json are understood", format)
	}
	return nil
}

// states are those of all containers. One that cannot be read, for it is just
// being made or deleted, is told in the log.
func (s *session) states() ([]ociruntime.State, error) {
	containers, err := ociruntime.List(s.root)
	if err != nil {
		return nil, err
	}
	states := []ociruntime.State{}
	for _, c := range containers {
		st, err := s.state(c)
		c.Close()
		if err != nil {
			s.log.Warn("read state", "container", c.ID, "error", err)
			continue
		}
		states = append(states, st)
	}
	return states, nil
}

func (s *session) printStates(states []ociruntime.State, quiet bool, format string) error {
	switch {
	case quiet:
		for _, st := range states {
			fmt.Fprintln(s.stdout, st.ID)
		}
		return nil
	case format == "json":
		return json.NewEncoder(s.stdout).Encode(states)
	}
	w := tabwriter.NewWriter(s.stdout, 12, 1, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER")
	for _, st := range states {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", st.ID, st.Pid, st.Status, st.Bundle, st.Created.Format(time.RFC3339Nano), st.Owner)
	}
	return w.Flush()
}
