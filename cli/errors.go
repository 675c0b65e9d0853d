package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes of run and create, as docker has them.
const (
	exitUsage    = 64  // EX_USAGE: a template that cannot be read
	exitEngine   = 125 // the engine refused, or an option was wrong
	exitNoInvoke = 126 // the command cannot be invoked
	exitNotFound = 127 // the command was not found
)

// statusError ends the process with a code. Without an error it says nothing.
type statusError struct {
	code int
	err  error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// exit ends the process with a container's own exit code.
func exit(code int) error {
	if code == 0 {
		return nil
	}
	return &statusError{code: code}
}

// flagError is what cobra is told to make of an option that it cannot read.
func flagError(cmd *cobra.Command, err error) error {
	return &statusError{code: exitEngine, err: fmt.Errorf("%w\n\n%s\n\nRun '%s --help' for more information", err, usageLine(cmd), cmd.CommandPath())}
}

// withHelp is how run ends when something went wrong before the container ran.
func withHelp(cmd *cobra.Command, err error, code int) error {
	if err == nil {
		return nil
	}
	if s, ok := errors.AsType[*statusError](err); ok {
		return s
	}
	return &statusError{code: code, err: fmt.Errorf("gantry: %w\n\nRun '%s --help' for more information", err, cmd.CommandPath())}
}

// startCode is the exit code for a container that could not be started. Engines
// say why only in words (these are runc's and ours).
func startCode(err error) int {
	text := err.Error()
	for _, s := range []struct {
		words string
		code  int
	}{
		{"executable file not found", exitNotFound},
		{"no such file or directory", exitNotFound},
		{"system cannot find the file specified", exitNotFound},
		{"permission denied", exitNoInvoke},
		{"is a directory", exitNoInvoke},
		{"exec format error", exitNoInvoke},
	} {
		if strings.Contains(text, s.words) {
			return s.code
		}
	}
	return exitEngine
}

// argsError says how many arguments a command takes.
func argsError(cmd *cobra.Command, wants, see string) error {
	return fmt.Errorf("gantry: '%s' %s\n\n%s\n\n%s '%s --help' for more information",
		cmd.CommandPath(), wants, usageLine(cmd), see, cmd.CommandPath())
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return argsError(cmd, "accepts no arguments", "Run")
}

func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return argsError(cmd, fmt.Sprintf("requires %d %s", n, plural(n)), "Run")
	}
}

func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return argsError(cmd, fmt.Sprintf("requires at least %d %s", n, plural(n)), "See")
	}
}

func maxArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return argsError(cmd, fmt.Sprintf("requires at most %d %s", n, plural(n)), "Run")
	}
}

func rangeArgs(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && len(args) <= high {
			return nil
		}
		return argsError(cmd, fmt.Sprintf("requires at least %d and at most %d %s", low, high, plural(high)), "Run")
	}
}

func plural(n int) string {
	if n == 1 {
		return "argument"
	}
	return "arguments"
}
