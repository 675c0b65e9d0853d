package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/ociruntime"
)

var eventsCommand = command{
	name: "events", args: "CONTAINER", least: 1, most: 1,
	about: "print what a container uses, and when it runs out of memory, as lines of JSON",
	flags: func(f *flags) action {
		once := f.flag("stats", "print what it uses once")
		interval := f.text("interval", "DURATION", "time between two lines", "5s")
		return with(func(s *session, c *ociruntime.Container) error {
			every, err := time.ParseDuration(*interval)
			if err != nil || every <= 0 {
				return fmt.Errorf("events: --interval %q: a duration such as 5s is due", *interval)
			}
			st, err := c.State()
			if err != nil {
				return err
			}
			if st.Status == ociruntime.Stopped {
				return fmt.Errorf("container with id %s is not running", c.ID)
			}
			e := &events{id: c.ID, container: c, out: json.NewEncoder(s.stdout)}
			if *once {
				return e.stats()
			}
			return e.follow(every)
		})
	},
}

// event is one line.
type event struct {
	Type string            `json:"type"` // "stats" or "oom"
	ID   string            `json:"id"`
	Data *ociruntime.Stats `json:"data,omitempty"`
}

type events struct {
	id        string
	container *ociruntime.Container
	out       *json.Encoder
	kills     uint64 // processes killed for want of memory, as last seen
}

func (e *events) stats() error {
	stats, err := e.container.Stats()
	if err != nil {
		return err
	}
	e.kills = stats.Memory.OOMKill
	return e.out.Encode(event{"stats", e.id, stats})
}

// follow prints until the container has ended.
func (e *events) follow(every time.Duration) error {
	if err := e.stats(); err != nil {
		return err
	}
	oom, err := e.container.OOM()
	if err != nil {
		return err
	}
	defer oom.Close()
	next := time.Now().Add(every)
	fds := []unix.PollFd{{Fd: int32(oom.Fd()), Events: unix.POLLIN}, {Fd: int32(e.container.PidFD.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, int(time.Until(next).Milliseconds())+1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("wait for events of %s: %w", e.id, err)
		case fds[1].Revents != 0:
			return nil // the first process is gone
		case n == 0:
			next = next.Add(every)
			if err := e.stats(); err != nil {
				return err
			}
		default:
			if err := e.oom(oom); err != nil {
				return err
			}
		}
	}
}

// oom prints that memory ran out. On cgroup v2 the descriptor tells of every
// change of memory.events, so the count of kills decides; on v1 the kernel
// notifies before it kills.
func (e *events) oom(f *os.File) error {
	var b [4096]byte
	if _, err := unix.Read(int(f.Fd()), b[:]); err != nil && !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("read the notification of %s: %w", e.id, err)
	}
	stats, err := e.container.Stats()
	if err != nil {
		return err
	}
	if stats.CgroupVersion == 2 && stats.Memory.OOMKill == e.kills {
		return nil
	}
	e.kills = stats.Memory.OOMKill
	return e.out.Encode(event{Type: "oom", ID: e.id})
}
