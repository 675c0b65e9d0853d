package slack

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func slackOf(t *testing.T, tid int) string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

// A child that inherited the slack would have it in every sleep of its own.
func TestTheMonitorAloneHasTheSlack(t *testing.T) {
	main := slackOf(t, os.Getpid())
	if err := Monitor(3 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	tid, err := monitor()
	if err != nil {
		t.Fatal(err)
	}
	if got := slackOf(t, tid); got != "3000000" {
		t.Errorf("slack of the monitor is %s ns", got)
	}
	if got := slackOf(t, os.Getpid()); got != main {
		t.Errorf("slack of the main thread is %s ns, was %s", got, main)
	}
	out, err := exec.Command("cat", "/proc/self/timerslack_ns").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(out)); got != main {
		t.Errorf("slack of a child is %s ns, want %s", got, main)
	}
}
