package engine

import (
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

func TestAPolicyStartsAgain(t *testing.T) {
	on := func(name container.RestartPolicyMode, max int) container.RestartPolicy {
		return container.RestartPolicy{Name: name, MaximumRetryCount: max}
	}
	for _, c := range []struct {
		name string
		p    container.RestartPolicy
		s    state
		want bool
	}{
		{"no never does", on("no", 0), state{ExitCode: 1}, false},
		{"none never does", on("", 0), state{ExitCode: 1}, false},
		{"always does after success", on("always", 0), state{}, true},
		{"always does not after a stop", on("always", 0), state{Stopped: true}, false},
		{"unless-stopped does after failure", on("unless-stopped", 0), state{ExitCode: 1}, true},
		{"unless-stopped does not after a stop", on("unless-stopped", 0), state{ExitCode: 1, Stopped: true}, false},
		{"on-failure does after failure", on("on-failure", 0), state{ExitCode: 1}, true},
		{"on-failure does not after success", on("on-failure", 0), state{}, false},
		{"on-failure has tries left", on("on-failure", 3), state{ExitCode: 1, RestartCount: 2}, true},
		{"on-failure has no try left", on("on-failure", 3), state{ExitCode: 1, RestartCount: 3}, false},
	} {
		if got := shouldRestart(c.p, c.s); got != c.want {
			t.Errorf("%s: got %v", c.name, got)
		}
	}
}

func TestDelaysDoubleUntilTheContainerStaysUp(t *testing.T) {
	var b backoff
	for i, want := range []time.Duration{100, 200, 400, 800, 1600} {
		if got := b.next(time.Second); got != want*time.Millisecond {
			t.Errorf("delay %d is %v, want %v", i, got, want*time.Millisecond)
		}
	}
	for range 20 {
		b.next(0)
	}
	if got := b.next(0); got != longestDelay {
		t.Errorf("the longest delay is %v, want %v", got, longestDelay)
	}
	if got := b.next(stayedUp); got != firstDelay {
		t.Errorf("after a run that stayed up: %v, want %v", got, firstDelay)
	}
}
