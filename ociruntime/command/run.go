package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/ociruntime"
)

var runCommand = command{
	name: "run", args: "CONTAINER", least: 1, most: 1,
	about: "create and start a container, wait for its end and delete it",
	flags: func(f *flags) action {
		l := launchFlags(f)
		detach := f.flag("detach d", "leave it running")
		keep := f.flag("keep", "do not delete it at the end")
		noSubreaper := f.flag("no-subreaper", "leave processes that lose their parent to the parent of this one")
		return func(s *session, args []string) (int, error) {
			if *detach {
				return s.runDetached(l, args[0])
			}
			if !*noSubreaper {
				if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
					return 1, fmt.Errorf("become subreaper: %w", err)
				}
			}
			return s.runAttached(l, args[0], *keep)
		}
	},
}

func (s *session) runDetached(l launch, id string) (int, error) {
	c, err := l.create(s, id, true)
	if err != nil {
		return 1, err
	}
	n, err := listenForReady(c)
	if err == nil {
		err = s.startReady(c, n, c.Pid)
	}
	if err != nil {
		return 1, errors.Join(err, discard(c))
	}
	return 0, c.Close()
}

// discard takes a container apart that is not to be, and reaps its process.
func discard(c *ociruntime.Container) error {
	if err := c.Delete(context.Background(), true); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	_, err := syscall.Wait4(c.Pid, nil, 0, nil)
	if errors.Is(err, unix.ECHILD) {
		return nil // reaped already
	}
	return err
}

// runAttached plays the parent that other callers of a runtime are themselves:
// it forwards signals, drives the terminal and reaps.
func (s *session) runAttached(l launch, id string, keep bool) (code int, err error) {
	signals := catchSignals()
	c, err := l.create(s, id, false)
	if err != nil {
		return 1, err
	}
	if !keep {
		defer func() {
			if e := discard(c); e != nil {
				code, err = 1, errors.Join(err, e)
			}
		}()
	}
	terminal, err := s.drive(c.Console)
	if err != nil {
		return 1, err
	}
	defer terminal.restore()
	n, err := listenForReady(c)
	if err != nil {
		return 1, err
	}
	if err := c.Start(context.Background()); err != nil {
		n.close()
		return 1, err
	}
	// We are the main process to the manager, for we pass its signals on.
	told := make(chan error, 1)
	go func() { told <- n.pass(c.PidFD, os.Getpid()) }()
	status, err := follow(signals, c.Pid, terminal)
	if err := <-told; err != nil {
		s.log.Warn(untold, "error", err)
	}
	if err != nil {
		return 1, err
	}
	return exitCode(status), nil
}

// catchSignals begins before there is a child, so that none is missed. The
// channel holds what comes until follow passes it on. SIGURG is not among them:
// it is of the Go scheduler.
func catchSignals() chan os.Signal {
	const pending = 128
	c := make(chan os.Signal, pending)
	signal.Notify(
		c, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGPIPE, unix.SIGALRM, unix.SIGTERM,
		unix.SIGCHLD, unix.SIGCONT, unix.SIGTSTP, unix.SIGTTIN, unix.SIGTTOU, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR,
	)
	return c
}

// beforeRealTime is how long a program runs before signals that have a number
// alone are passed on to it. To be told of one takes the Go runtime two switches
// of threads, and there are thirty: a program that ends sooner is spared them.
const beforeRealTime = 50 * time.Millisecond

func catchRealTime(c chan<- os.Signal) {
	const first, last = 34, 64
	for sig := syscall.Signal(first); sig <= last; sig++ {
		signal.Notify(c, sig)
	}
}

// follow passes signals on to pid and reaps every child until pid has ended.
func follow(signals chan os.Signal, pid int, t *terminal) (syscall.WaitStatus, error) {
	defer time.AfterFunc(beforeRealTime, func() { catchRealTime(signals) }).Stop()
	for {
		status, ended, err := reap(pid)
		if err != nil {
			return 0, err
		}
		if ended {
			t.drain()
			return status, nil
		}
		switch sig := (<-signals).(syscall.Signal); sig {
		case unix.SIGCHLD, unix.SIGPIPE:
		case unix.SIGWINCH:
			t.resize()
		default:
			if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
				return 0, fmt.Errorf("forward %v: %w", sig, err)
			}
		}
	}
}

// reap reaps the children that have ended, and says how pid did, if it did.
func reap(pid int) (status syscall.WaitStatus, ended bool, err error) {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return 0, false, fmt.Errorf("wait for %d: %w", pid, err)
		case got == 0:
			return 0, false, nil
		case got == pid:
			return ws, true, nil
		}
	}
}

// exitCode is the code of a shell: 128 and the signal for one that was killed.
func exitCode(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}
