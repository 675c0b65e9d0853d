package seccomp

import (
	"errors"
	"maps"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Actions, Operators and Flags are the words that [Compile] knows, for
// `features`; Archs are in arch.go.
func Actions() []string { return sorted(maps.Keys(verdicts)) }

// Operators are the comparisons of an argument.
func Operators() []string { return sorted(slices.Values(operators)) }

// Flags are the flags of the filter.
func Flags() []string { return sorted(maps.Keys(flagValues)) }

// SupportedFlags are the Flags that this kernel takes: a filter that is not
// there is EFAULT, an unknown flag before that EINVAL (seccomp(2)).
func SupportedFlags() []string {
	const setModeFilter = 1
	var names []string
	for _, f := range slices.Sorted(maps.Keys(flagValues)) {
		flags := flagValues[f]
		if f == specs.LinuxSeccompFlagWaitKillableRecv {
			flags |= NewListener // it is about the listener
		}
		_, _, errno := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, uintptr(flags), 0)
		if errors.Is(errno, unix.EFAULT) {
			names = append(names, string(f))
		}
	}
	return names
}

func sorted[S ~string](names func(func(S) bool)) []string {
	var list []string
	for _, n := range slices.Sorted(names) {
		list = append(list, string(n))
	}
	return list
}
