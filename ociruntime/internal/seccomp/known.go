package seccomp

import (
	"errors"
	"fmt"
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

// CheckNames refuses a profile with a name that no call has on any architecture of
// ours: [Compile] takes it for one of a newer kernel or another machine.
func CheckNames(s *specs.LinuxSeccomp) error {
	for i, c := range s.Syscalls {
		for _, name := range c.Names {
			known := slices.ContainsFunc([][]call{callsAMD64, calls386, callsARM64, callsARM}, func(calls []call) bool {
				_, _, ok := find(calls, name)
				return ok
			})
			if !known {
				return fmt.Errorf("syscalls[%d]: call %q is unknown", i, name)
			}
		}
	}
	return nil
}

func sorted[S ~string](names func(func(S) bool)) []string {
	var list []string
	for _, n := range slices.Sorted(names) {
		list = append(list, string(n))
	}
	return list
}
