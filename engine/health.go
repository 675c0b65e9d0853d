package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/moby/moby/api/types/container"
	eventsapi "github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// What a health check is where the user says nothing, and what is kept of it.
const (
	healthInterval      = 30 * time.Second
	healthTimeout       = 30 * time.Second
	healthStartInterval = 5 * time.Second
	healthRetries       = 3

	keptHealthResults = 5
	keptHealthOutput  = 4096 // bytes of one result
)

// healthCheck is a check with nothing left open.
type healthCheck struct {
	cmd                                           []string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
}

// checkOf reads the check of a container; ok is false if it has none.
func checkOf(cfg *container.Config) (h healthCheck, ok bool) {
	c := cfg.Healthcheck
	if c == nil || len(c.Test) == 0 {
		return h, false
	}
	switch kind, args := c.Test[0], c.Test[1:]; {
	case kind == "CMD" && len(args) > 0:
		h.cmd = args
	case kind == "CMD-SHELL" && len(args) > 0:
		shell := cfg.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		h.cmd = append(slices.Clone(shell), args...)
	default:
		return h, false // NONE
	}
	or := func(d, otherwise time.Duration) time.Duration {
		if d == 0 {
			return otherwise
		}
		return d
	}
	h.interval, h.timeout = or(c.Interval, healthInterval), or(c.Timeout, healthTimeout)
	h.startPeriod, h.startInterval = c.StartPeriod, or(c.StartInterval, healthStartInterval)
	if h.retries = c.Retries; h.retries == 0 {
		h.retries = healthRetries
	}
	return h, true
}

// pause is how long to wait before the next probe of a container that has run for
// up.
func (h healthCheck) pause(s container.HealthStatus, up time.Duration) time.Duration {
	if s == container.Starting && up < h.startPeriod {
		return h.startInterval
	}
	return h.interval
}

// judge gives the health after one more result. A container that was never healthy
// is not blamed for what fails in its start period. now shares nothing with was.
func (h healthCheck) judge(was container.Health, started time.Time, res container.HealthcheckResult) (now container.Health) {
	now = was
	now.Log = append(slices.Clone(was.Log), &res)
	if n := len(now.Log); n > keptHealthResults {
		now.Log = now.Log[n-keptHealthResults:]
	}
	switch {
	case res.ExitCode == 0:
		now.Status, now.FailingStreak = container.Healthy, 0
	case was.Status == container.Starting && res.Start.Sub(started) < h.startPeriod:
	default:
		now.FailingStreak++
		if now.FailingStreak >= h.retries {
			now.Status = container.Unhealthy
		}
	}
	return now
}

// freshHealth is that of a container at its start; nil without a check.
func freshHealth(cfg *container.Config) *container.Health {
	if _, ok := checkOf(cfg); !ok {
		return nil
	}
	return &container.Health{Status: container.Starting, Log: []*container.HealthcheckResult{}}
}

// probe checks the health of k for as long as the task r runs.
func (c *containers) probe(k *ctr, r *run) {
	h, ok := checkOf(k.snapshot().Config)
	if !ok {
		return
	}
	c.goroutine(func(ctx context.Context) {
		for {
			s := k.snapshot()
			timer := time.NewTimer(h.pause(healthOf(s), time.Since(r.started)))
			select {
			case <-timer.C:
			case <-r.exited:
				timer.Stop()
				return
			case <-ctx.Done():
				timer.Stop()
				return
			}
			if !k.snapshot().State.Paused {
				c.probeOnce(ctx, k, r, h)
			}
		}
	})
}

// probeOnce runs the check and keeps what came of it.
func (c *containers) probeOnce(ctx context.Context, k *ctr, r *run, h healthCheck) {
	res := container.HealthcheckResult{Start: time.Now()}
	res.ExitCode, res.Output = c.execs.probe(ctx, k, h)
	res.End = time.Now()
	if r.over() || ctx.Err() != nil {
		return
	}
	k.mu.Lock()
	if k.run != r || k.rec.Health == nil {
		k.mu.Unlock()
		return
	}
	was := *k.rec.Health
	now := h.judge(was, r.started, res)
	k.rec.Health = &now
	k.wake()
	k.mu.Unlock()
	if now.Status != was.Status {
		c.publish(k, eventsapi.ActionHealthStatus+eventsapi.Action(": "+string(now.Status)), nil)
	}
	// One more success need not be written down.
	if now.Status != was.Status || now.FailingStreak != was.FailingStreak {
		c.persistSoon(k)
	}
}

// probe runs the check in the container of k, for as long as it may take.
func (x *execs) probe(ctx context.Context, k *ctr, h healthCheck) (code int, output string) {
	e := &execution{
		id: newID(), k: k, started: make(chan struct{}),
		wish: container.ExecCreateRequest{Cmd: h.cmd, AttachStdout: true, AttachStderr: true},
	}
	x.add(e)
	defer x.drop(e)
	if err := e.begin(); err != nil {
		return -1, err.Error()
	}
	x.containers.publish(k, eventsapi.ActionExecCreate+eventsapi.Action(": "+strings.Join(h.cmd, " ")), map[string]string{"execID": e.id})
	out := &firstBytes{max: keptHealthOutput}
	start, cancel := context.WithTimeout(ctx, h.timeout)
	defer cancel()
	p, err := x.start(start, e, execIO{stdout: out, stderr: out})
	if err != nil {
		if start.Err() != nil && ctx.Err() == nil {
			return -1, exceeded(h, "")
		}
		return -1, err.Error()
	}
	done := make(chan int, 1)
	x.containers.goroutine(func(context.Context) { done <- p.finish(context.WithoutCancel(ctx)) })
	select {
	case code = <-done:
		return code, out.String()
	case <-start.Done():
	}
	kill, stop := context.WithTimeout(context.WithoutCancel(ctx), killTime)
	defer stop()
	_, err = x.containers.ctrd.Tasks.Kill(kill, &tasksapi.KillRequest{ContainerID: k.id, ExecID: e.id, Signal: uint32(unix.SIGKILL)})
	if err == nil {
		err = waitFor(kill, done)
	}
	if err != nil {
		x.containers.cfg.Log.Warn("health check does not end", "container", k.id, "exec", e.id, "err", err)
	}
	return -1, exceeded(h, out.String())
}

func exceeded(h healthCheck, output string) string {
	text := fmt.Sprintf("Health check exceeded timeout (%v)", h.timeout)
	if output != "" {
		text += ": " + output
	}
	return text
}

// waitFor waits for a value of done, or for the end of ctx.
func waitFor(ctx context.Context, done <-chan int) error {
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// firstBytes keeps the beginning of what is written.
type firstBytes struct {
	max int

	mu  sync.Mutex
	buf []byte
	cut bool
}

func (f *firstBytes) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(len(p), f.max-len(f.buf))
	f.buf = append(f.buf, p[:n]...)
	f.cut = f.cut || n < len(p)
	return len(p), nil
}

func (f *firstBytes) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut {
		return string(f.buf) + "..."
	}
	return string(f.buf)
}
