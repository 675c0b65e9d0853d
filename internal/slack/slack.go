// Package slack has the Go runtime's monitor wake less often.
//
// The monitor ("sysmon") is a thread that polls: while anything runs it sleeps
// for 20 µs, looks whether a goroutine is stuck in a system call, and sleeps
// again. A program of short system calls pays for that with a good part of its
// processor time, and with a thread for each call that took a little longer. What
// the kernel may add to a sleep is an attribute of the thread (proc_pid(5),
// timerslack_ns), and is inherited by children: so it is set for the monitor alone,
// which has none.
package slack

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Monitor lets each sleep of the monitor take longer by d. A goroutine in a system
// call that blocks may hold the processor of others so long. Called first in main.
func Monitor(d time.Duration) error {
	tid, err := monitor()
	if err != nil {
		return fmt.Errorf("find the runtime's monitor: %w", err)
	}
	return os.WriteFile(fmt.Sprintf("/proc/%d/timerslack_ns", tid), strconv.AppendInt(nil, int64(d), 10), 0)
}

// monitor is the thread that the runtime starts first: the next after the main one.
func monitor() (int, error) {
	pid := os.Getpid()
	if unix.Tgkill(pid, pid+1, 0) == nil {
		return pid + 1, nil
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return 0, err
	}
	first := 0
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			return 0, err
		}
		if tid > pid && (first == 0 || tid < first) {
			first = tid
		}
	}
	if first == 0 {
		return 0, fmt.Errorf("process %d: %w", pid, unix.ESRCH)
	}
	return first, nil
}
