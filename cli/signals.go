package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

// forwarded are the signals that people and service managers send to make a
// program do something. To ask for all 64 costs 4 ms: the Go runtime takes each by
// two switches of threads.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGALRM, unix.SIGTERM,
	unix.SIGTSTP, unix.SIGPWR, sigRTMin3,
}

// sigRTMin3 is SIGRTMIN+3, by which systemd(1) in a container is halted.
const sigRTMin3 = unix.Signal(37)

// forward sends the signals that reach us on to a container, until stop is
// called. Three interrupts in a row end us too: then the container does not listen.
func (c *cli) forward(ctx context.Context, cl *client.Client, id string) (stop func()) {
	sigs := make(chan os.Signal, 16)
	signal.Notify(sigs, forwarded...)
	done := make(chan struct{})
	go func() {
		defer close(done)
		interrupts := 0
		for s := range sigs {
			if s == unix.SIGINT || s == unix.SIGTERM {
				if interrupts++; interrupts == 3 {
					fmt.Fprintln(c.std.Err, "got 3 SIGTERM/SIGINTs, forcefully exiting")
					os.Exit(1)
				}
			}
			// The container may be gone: the exit that follows says so.
			_ = cl.Post(ctx, "/containers/"+id+"/kill", url.Values{"signal": {signalName(s)}}, nil, nil)
		}
	}()
	return func() {
		signal.Stop(sigs)
		close(sigs)
		<-done
	}
}

// signalName is the signal as the engine is told it: real-time ones have numbers only.
func signalName(s os.Signal) string {
	name := unix.SignalName(s.(unix.Signal))
	if name == "" {
		return strconv.Itoa(int(s.(unix.Signal)))
	}
	return strings.TrimPrefix(name, "SIG")
}

// followSize gives the container's (or exec's) terminal the size of ours, now and
// whenever it changes, until stop is called. path is ".../resize".
func (c *cli) followSize(ctx context.Context, cl *client.Client, path string) (stop func()) {
	out, ok := terminal.File(c.std.Out)
	if !ok {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, unix.SIGWINCH)
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := resize(ctx, cl, path, out)
		// A process that has just been started may not have its terminal yet.
		for try := range 10 {
			if err == nil || ctx.Err() != nil {
				break
			}
			sleep(ctx, time.Duration(try+1)*10*time.Millisecond)
			err = resize(ctx, cl, path, out)
		}
		for {
			select {
			case <-sigs:
				_ = resize(ctx, cl, path, out) // the next change tries again
			case <-ctx.Done():
				return
			}
		}
	}()
	return func() {
		signal.Stop(sigs)
		cancel()
		<-done
	}
}

func resize(ctx context.Context, cl *client.Client, path string, out *os.File) error {
	h, w, ok := terminal.Size(out)
	if !ok {
		return nil
	}
	q := url.Values{"h": {fmt.Sprint(h)}, "w": {fmt.Sprint(w)}}
	return cl.Post(ctx, path, q, nil, nil)
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// detachKeys are the keys of an option, of config.json, or the usual ones. The
// text is what the engine is told; it is empty for the usual ones.
func (c *cli) detachKeys(option string) (text string, keys []byte, err error) {
	text = option
	if text == "" {
		text = c.file().DetachKeys
	}
	if text == "" {
		keys, err = terminal.ParseDetachKeys(terminal.DefaultDetachKeys)
		return "", keys, err
	}
	keys, err = terminal.ParseDetachKeys(text)
	if err != nil {
		return "", nil, errors.Join(err)
	}
	return text, keys, nil
}
