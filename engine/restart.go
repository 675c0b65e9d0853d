package engine

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/container"
)

// The delays between the starts that a restart policy makes: they double while
// the container does not stay up.
const (
	firstDelay   = 100 * time.Millisecond
	longestDelay = time.Minute
	stayedUp     = 10 * time.Second
)

// backoff is the delay before the next start.
type backoff struct{ last time.Duration }

// next gives the delay after a run that took ran.
func (b *backoff) next(ran time.Duration) time.Duration {
	if b.last == 0 || ran >= stayedUp {
		b.last = firstDelay
	} else {
		b.last = min(2*b.last, longestDelay)
	}
	return b.last
}

// shouldRestart reports whether the policy starts a container again that came to
// its end as s says.
func shouldRestart(p container.RestartPolicy, s state) bool {
	switch {
	case s.Stopped:
		return false
	case p.IsAlways(), p.IsUnlessStopped():
		return true
	case p.IsOnFailure():
		return s.ExitCode != 0 && (p.MaximumRetryCount == 0 || s.RestartCount < p.MaximumRetryCount)
	}
	return false
}

// restartAfter starts k again in delay, unless somebody does something else to it.
func (c *containers) restartAfter(k *ctr, delay time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.rec.State.Phase != restarting {
		return
	}
	k.restart = time.AfterFunc(delay, func() {
		c.goroutine(func(ctx context.Context) { c.startAgain(ctx, k) })
	})
}

// startAgain is the start that a restart policy makes. One that fails is made
// again like one whose container exits at once.
func (c *containers) startAgain(ctx context.Context, k *ctr) {
	if ctx.Err() != nil {
		return // the next engine does it
	}
	k.life.Lock()
	defer k.life.Unlock()
	if s, _, _ := k.now(); s.Phase != restarting {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), startTime)
	defer cancel()
	err := c.start(ctx, k, nil)
	if err == nil {
		return
	}
	c.cfg.Log.Warn("restart", "container", k.id, "err", err)
	k.mu.Lock()
	again := !k.leaving && shouldRestart(k.rec.HostConfig.RestartPolicy, k.rec.State)
	delay := k.backoff.next(0)
	if again {
		k.rec.State.Phase = restarting
		k.rec.State.RestartCount++
		k.wake()
	}
	k.mu.Unlock()
	if again {
		c.restartAfter(k, delay)
	}
}

// cancelRestart takes the next start by policy away, and reports whether there
// was one to come.
func (k *ctr) cancelRestart() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.rec.State.Phase != restarting {
		return false
	}
	if k.restart != nil {
		k.restart.Stop()
		k.restart = nil
	}
	k.rec.State.Phase = exited
	k.wake()
	return true
}
