package engine

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

func TestTheCheckOfAContainer(t *testing.T) {
	defaults := healthCheck{interval: 30 * time.Second, timeout: 30 * time.Second, startInterval: 5 * time.Second, retries: 3}
	with := func(cmd ...string) healthCheck {
		h := defaults
		h.cmd = cmd
		return h
	}
	for _, c := range []struct {
		name string
		cfg  container.Config
		want healthCheck
		ok   bool
	}{
		{"none said", container.Config{}, healthCheck{}, false},
		{"an empty one", container.Config{Healthcheck: &container.HealthConfig{}}, healthCheck{}, false},
		{"switched off", container.Config{Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}}, healthCheck{}, false},
		{"a program", container.Config{Healthcheck: &container.HealthConfig{Test: []string{"CMD", "a", "b"}}}, with("a", "b"), true},
		{"a line for the shell", container.Config{Healthcheck: &container.HealthConfig{Test: []string{"CMD-SHELL", "a b"}}}, with("/bin/sh", "-c", "a b"), true},
		{"a line for the image's shell", container.Config{
			Shell: []string{"/bin/ash", "-x"}, Healthcheck: &container.HealthConfig{Test: []string{"CMD-SHELL", "a"}},
		}, with("/bin/ash", "-x", "a"), true},
		{"a word that is no kind", container.Config{Healthcheck: &container.HealthConfig{Test: []string{"a"}}}, healthCheck{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok := checkOf(&c.cfg)
			if ok != c.ok || ok && !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v", got, ok)
			}
		})
	}
}

func TestHealthIsJudgedByItsLastResults(t *testing.T) {
	h := healthCheck{interval: 10 * time.Second, startInterval: time.Second, startPeriod: 20 * time.Second, retries: 2}
	began := time.Now()
	for _, c := range []struct {
		name    string
		results []int // exit codes, one each 8 seconds
		want    container.HealthStatus
		streak  int
	}{
		{"nothing known", nil, container.Starting, 0},
		{"one success is healthy", []int{0}, container.Healthy, 0},
		{"failures in the start period do not count", []int{1, 1}, container.Starting, 0},
		{"failures after it do", []int{1, 1, 1}, container.Starting, 1},
		{"as many as retries are unhealthy", []int{1, 1, 1, 1}, container.Unhealthy, 2},
		{"once healthy, the start period is over", []int{0, 1}, container.Healthy, 1},
		{"once healthy, failures count", []int{0, 1, 1}, container.Unhealthy, 2},
		{"one success heals", []int{0, 1, 1, 0}, container.Healthy, 0},
		{"a probe that did not run is a failure", []int{0, -1, -1}, container.Unhealthy, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := container.Health{Status: container.Starting}
			for i, code := range c.results {
				now = h.judge(now, began, container.HealthcheckResult{
					Start: began.Add(time.Duration(i+1) * 8 * time.Second), ExitCode: code, Output: fmt.Sprint(i),
				})
			}
			if now.Status != c.want || now.FailingStreak != c.streak {
				t.Errorf("got %s, %d", now.Status, now.FailingStreak)
			}
		})
	}
	var now container.Health
	for i := range 9 {
		now = h.judge(now, began, container.HealthcheckResult{Output: fmt.Sprint(i)})
	}
	if len(now.Log) != keptHealthResults || now.Log[0].Output != "4" {
		t.Errorf("%d results are kept, the first %q", len(now.Log), now.Log[0].Output)
	}
	for _, c := range []struct {
		name   string
		status container.HealthStatus
		up     time.Duration
		want   time.Duration
	}{
		{"in the start period", container.Starting, time.Second, h.startInterval},
		{"after the start period", container.Starting, time.Minute, h.interval},
		{"healthy in the start period", container.Healthy, time.Second, h.interval},
	} {
		if got := h.pause(c.status, c.up); got != c.want {
			t.Errorf("%s: pause of %v, want %v", c.name, got, c.want)
		}
	}
}

func TestTheBeginningOfOutputIsKept(t *testing.T) {
	out := &firstBytes{max: 5}
	for _, s := range []string{"ab", "cd", "efgh", "i"} {
		if n, err := out.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatalf("write %q: %d, %v", s, n, err)
		}
	}
	if got := out.String(); got != "abcde..." {
		t.Errorf("got %q", got)
	}
}
