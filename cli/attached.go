package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/stream"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

// attached carries the user's streams to and from a process in a container.
type attached struct {
	stdin          io.Reader // nil: not attached
	stdout, stderr io.Writer // nil: not attached
	tty            bool      // the process has a terminal: one raw stream
	detachKeys     []byte
}

// streams are the user's streams as far as they are wanted.
func (c *cli) streams(stdin, stdout, stderr, tty bool) attached {
	a := attached{tty: tty}
	if stdin {
		a.stdin = c.std.In
	}
	if stdout {
		a.stdout = c.std.Out
	}
	if stderr {
		a.stderr = c.std.Err
	}
	return a
}

// copy carries bytes until the process's output ends, the user detaches
// (terminal.ErrDetached) or ctx ends. While it runs, the user's terminal is raw if
// the process has a terminal and stdin.
func (a attached) copy(ctx context.Context, s *client.Stream) error {
	defer s.Close()
	restore, err := a.raw()
	if err != nil {
		return err
	}
	defer restore()

	output := make(chan error, 1)
	go func() { output <- a.copyOut(s) }()
	input := make(chan error, 1)
	go func() { input <- a.copyIn(s) }()

	for {
		select {
		case err := <-output:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		case err := <-input:
			if errors.Is(err, terminal.ErrDetached) {
				return err
			}
			// The end of stdin is not the end: output may still come.
			if a.stdout == nil && a.stderr == nil {
				return nil
			}
			input = nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// raw makes the terminal raw where keys are for the process, and returns what
// makes it as it was.
func (a attached) raw() (restore func(), err error) {
	nothing := func() {}
	if !a.tty || a.stdin == nil {
		return nothing, nil
	}
	in, ok := terminal.File(a.stdin)
	if !ok {
		return nothing, nil
	}
	undo, err := terminal.Raw(in)
	if err != nil {
		return nothing, fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	var once sync.Once
	return func() { once.Do(undo) }, nil
}

func (a attached) copyOut(s *client.Stream) error {
	if a.stdout == nil && a.stderr == nil {
		_, err := io.Copy(io.Discard, s)
		return err
	}
	if a.tty {
		_, err := io.Copy(a.stdout, s)
		return err
	}
	return stream.Demux(orDiscard(a.stdout), orDiscard(a.stderr), s)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// copyIn sends stdin, and the end of it.
func (a attached) copyIn(s *client.Stream) error {
	if a.stdin != nil {
		in := a.stdin
		if a.tty && len(a.detachKeys) > 0 {
			in = terminal.NewDetachReader(in, a.detachKeys)
		}
		_, err := io.Copy(writeOnly{s}, in)
		if errors.Is(err, terminal.ErrDetached) {
			return err
		}
		// Another error means that the process is gone; the output's end tells.
	}
	return s.CloseWrite()
}

// writeOnly hides ReadFrom, whose splice would bypass the detach keys.
type writeOnly struct{ io.Writer }

// checkTTY refuses a terminal for the process where the user has none to type on.
func (c *cli) checkTTY(stdin, tty bool) error {
	if !stdin || !tty {
		return nil
	}
	if _, ok := terminal.File(c.std.In); ok {
		return nil
	}
	return errors.New("the input device is not a TTY")
}
