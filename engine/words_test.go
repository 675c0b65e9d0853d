package engine

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
	"time"

	eventsapi "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

func TestSignalsHaveManyNames(t *testing.T) {
	for _, c := range []struct {
		s    string
		want unix.Signal
	}{
		{"9", 9},
		{"KILL", 9},
		{"SIGKILL", 9},
		{"sigterm", 15},
		{"RTMIN", 34},
		{"RTMIN+3", 37},
		{"SIGRTMAX-1", 63},
		{"64", 64},
		{"0", 0},
		{"65", 0},
		{"-1", 0},
		{"FOO", 0},
		{"", 0},
		{"RTMIN+99", 0},
	} {
		got, err := parseSignal(c.s)
		if c.want == 0 && (err == nil || statusOf(err) != 400) || c.want != 0 && (err != nil || got != c.want) {
			t.Errorf("%q: got %d, %v, want %d", c.s, got, err, c.want)
		}
	}
}

func TestDetachKeysAreReadAndFound(t *testing.T) {
	for _, c := range []struct {
		s    string
		want []byte
	}{
		{"", []byte{16, 17}},
		{"ctrl-a", []byte{1}},
		{"a,ctrl-b,c", []byte{'a', 2, 'c'}},
		{"ctrl-@,ctrl-[", []byte{0, 27}},
		{"DEL", []byte{127}},
		{"ab", nil},
		{"ctrl-", nil},
		{"ctrl-ab", nil},
		{"ctrl-!", nil},
		{",", nil},
	} {
		got, err := parseDetachKeys(c.s)
		if c.want == nil && err == nil || c.want != nil && !bytes.Equal(got, c.want) {
			t.Errorf("%q: got %v, %v, want %v", c.s, got, err, c.want)
		}
	}
	for _, c := range []struct {
		name, typed, passed string
		detached            bool
	}{
		{"nothing of them", "hello", "hello", false},
		{"at the end", "helloXY", "hello", true},
		{"what follows is not read", "aXYb", "a", true},
		{"the first alone is passed on", "aXb", "aXb", false},
		{"the first twice", "aXXY", "aX", true},
		{"the first at the end", "aX", "aX", false},
	} {
		for _, whole := range []bool{true, false} {
			var in io.Reader = bytes.NewReader([]byte(c.typed))
			if !whole {
				in = iotest.OneByteReader(in)
			}
			got, err := io.ReadAll(&detachReader{r: in, keys: []byte("XY")})
			if string(got) != c.passed || errors.Is(err, errDetached) != c.detached {
				t.Errorf("%s (at once: %v): got %q, %v", c.name, whole, got, err)
			}
		}
	}
}

func TestAListenerThatFallsBehindGetsWhatIsKept(t *testing.T) {
	ev := newEvents()
	for range keptEvents + 10 {
		ev.publish(eventsapi.ContainerEventType, eventsapi.ActionStart, "x", nil)
	}
	ms, next, more := ev.from(0)
	if len(ms) == 0 || len(ms) > keptEvents || next != keptEvents+10 {
		t.Errorf("%d events, next %d", len(ms), next)
	}
	if ms, _, _ := ev.from(next); len(ms) != 0 {
		t.Errorf("%d events twice", len(ms))
	}
	ev.publish(eventsapi.ContainerEventType, eventsapi.ActionDie, "x", nil)
	select {
	case <-more:
	case <-time.After(time.Minute):
		t.Fatal("nobody tells of one more")
	}
	if ms, _, _ = ev.from(next); len(ms) != 1 || ms[0].Action != eventsapi.ActionDie {
		t.Errorf("got %v", ms)
	}
}

func TestEventsAreFiltered(t *testing.T) {
	m := eventsapi.Message{
		Type: eventsapi.ContainerEventType, Action: "exec_start: sh -c true", Scope: "local",
		Actor: eventsapi.Actor{ID: "abcdef", Attributes: map[string]string{"name": "web", "image": "nginx:1.2", "l": "v"}},
	}
	for _, c := range []struct {
		name string
		f    filters
		want bool
	}{
		{"no filter", nil, true},
		{"its type", filters{"type": {"container": true}}, true},
		{"another type", filters{"type": {"image": true}}, false},
		{"its action without what follows", filters{"event": {"exec_start": true}}, true},
		{"another action", filters{"event": {"exec_die": true}}, false},
		{"its name", filters{"container": {"web": true}}, true},
		{"the beginning of its ID", filters{"container": {"abc": true}}, true},
		{"another noun", filters{"network": {"abc": true}}, false},
		{"its label", filters{"label": {"l=v": true}}, true},
		{"another label", filters{"label": {"l=w": true}}, false},
		{"its image without tag", filters{"image": {"nginx": true}}, true},
		{"another image", filters{"image": {"nginx:1.3": true}}, false},
	} {
		if got := wanted(c.f, m); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}
