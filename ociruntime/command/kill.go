package command

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

var killCommand = command{
	name: "kill", args: "CONTAINER [SIGNAL]", least: 1, most: 2,
	about: "send a signal (default: TERM) to the first process",
	flags: func(f *flags) action {
		all := f.flag("all a", "send it to every process of the container")
		return func(s *session, args []string) (int, error) {
			name := "TERM"
			if len(args) == 2 {
				name = args[1]
			}
			sig, err := parseSignal(name)
			if err != nil {
				return 1, err
			}
			c, err := s.load(args[0])
			if err != nil {
				return 1, err
			}
			defer c.Close()
			err = c.Kill(sig, *all)
			if errdefs.IsNotFound(err) {
				return 1, fmt.Errorf("%s: %w", args[0], errNotRunning)
			}
			if err != nil {
				return 1, err
			}
			return 0, nil
		}
	},
}

// parseSignal reads 15, TERM, SIGTERM, RTMIN, RTMIN+3, RTMAX-1.
func parseSignal(s string) (syscall.Signal, error) {
	const rtmin, rtmax = 34, 64 // of the C library, which keeps the first two (signal(7))
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= rtmax {
		return syscall.Signal(n), nil
	}
	if sig := unix.SignalNum("SIG" + name); sig != 0 {
		return sig, nil
	}
	for _, base := range []struct {
		name string
		n    int
	}{{"RTMIN", rtmin}, {"RTMAX", rtmax}} {
		rest, ok := strings.CutPrefix(name, base.name)
		if !ok {
			continue
		}
		offset, err := strconv.Atoi("0" + rest)
		if rest != "" {
			offset, err = strconv.Atoi(rest)
		}
		if n := base.n + offset; err == nil && n >= rtmin && n <= rtmax {
			return syscall.Signal(n), nil
		}
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}
