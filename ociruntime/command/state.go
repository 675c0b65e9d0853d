package command

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/gantryd/gantry/ociruntime"
)

var stateCommand = command{
	name: "state", args: "CONTAINER", least: 1, most: 1,
	about: "print the state of a container as JSON",
	flags: plain(with(func(s *session, c *ociruntime.Container) error {
		st, err := s.state(c)
		if err != nil {
			return err
		}
		if st.Status == ociruntime.Creating && st.Pid == 0 {
			// Who asks until there is an answer starts it then.
			return fmt.Errorf("%s: %w yet: it is being made, or who made it was killed (delete it then)", c.ID, errNoContainer)
		}
		return printJSON(s.stdout, st)
	})),
}

// state says whose container it is, too: the user who owns its directory.
func (s *session) state(c *ociruntime.Container) (ociruntime.State, error) {
	st, err := c.State()
	if err != nil || st.Owner != "" {
		return st, err
	}
	fi, err := os.Stat(filepath.Join(s.root, c.ID))
	if err != nil {
		return st, err
	}
	uid := strconv.FormatUint(uint64(fi.Sys().(*syscall.Stat_t).Uid), 10)
	st.Owner = "#" + uid
	if u, err := user.LookupId(uid); err == nil {
		st.Owner = u.Username
	}
	return st, nil
}

// printJSON writes v for both programs and people.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
