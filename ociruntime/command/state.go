package command

import (
	"encoding/json"
	"io"

	"github.com/gantryd/gantry/ociruntime"
)

var stateCommand = command{
	name: "state", args: "CONTAINER", least: 1, most: 1,
	about: "print the state of a container as JSON",
	flags: plain(with(func(s *session, c *ociruntime.Container) error {
		st, err := c.State()
		if err != nil {
			return err
		}
		return printJSON(s.stdout, st)
	})),
}

// printJSON writes v for both programs and people.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
