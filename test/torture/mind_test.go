package torture

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// mind is what a client knows of a container: the states that it may be in. A
// state is "gone", "created", "running", "paused" or "exited N".
//
// What the client was told is one state. A request that was cut off may have been
// done or not, and may be done later: a program that was signalled by it ends when
// it likes. So a mind holds the states that may be seen, and of them those that a
// running container may still come to.
type mind struct {
	may  map[string]bool
	ends map[string]bool // how it may end by itself while it runs
	past []string        // what was done and seen last, for who asks how it came so
}

// note keeps what was done.
func (m *mind) note(what string, err error) {
	at := time.Now().UTC().Format("15:04:05.000 ")
	if err != nil {
		what += fmt.Sprintf(" (%.80v)", err)
	}
	m.past = append(m.past[max(0, len(m.past)-15):], at+what)
}

func newMind(states ...string) *mind {
	m := &mind{ends: map[string]bool{}}
	m.is(states...)
	return m
}

// is says that the container is in one of states.
func (m *mind) is(states ...string) {
	m.may = map[string]bool{}
	m.also(states...)
}

// also says that the container may be in states as well.
func (m *mind) also(states ...string) {
	for _, s := range states {
		m.may[s] = true
	}
}

// mayEnd says that a running container may come to one of states by itself.
func (m *mind) mayEnd(states ...string) {
	for _, s := range states {
		m.ends[s] = true
	}
}

// sees takes note of the state that the container is in, or says why it cannot be.
func (m *mind) sees(state string) error {
	defer m.note("seen "+state, nil)
	runs := m.may["running"] || m.may["paused"]
	if !m.may[state] && !(runs && m.ends[state]) {
		return fmt.Errorf("is %s; may be %s; past:\n\t%s", state, m, strings.Join(m.past, "\n\t"))
	}
	m.is(state)
	return nil
}

func (m *mind) certain(state string) bool { return len(m.may) == 1 && m.may[state] && len(m.ends) == 0 }

func (m *mind) String() string {
	s := strings.Join(slices.Sorted(maps.Keys(m.may)), ", ")
	if len(m.ends) > 0 {
		s += "; may end as " + strings.Join(slices.Sorted(maps.Keys(m.ends)), ", ")
	}
	return s
}
