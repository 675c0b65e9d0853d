package ociruntime

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// capNames are the capabilities by number (linux/capability.h).
var capNames = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
	"CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
	"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
	"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
	"CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
	"CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
	"CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
}

func capName(n int) string {
	if n < len(capNames) {
		return capNames[n]
	}
	return fmt.Sprintf("CAP_%d", n)
}

// capSets are the five sets of a thread (capabilities(7)), bit n for capability n.
type capSets struct {
	bounding, effective, permitted, inheritable, ambient uint64
}

// capabilitySets reads process.capabilities, but for names that are unknown;
// without it there are none.
func capabilitySets(l *specs.LinuxCapabilities) (s capSets, unknown []string) {
	if l == nil {
		return s, nil
	}
	for _, set := range []struct {
		names []string
		bits  *uint64
	}{
		{l.Bounding, &s.bounding},
		{l.Effective, &s.effective},
		{l.Permitted, &s.permitted},
		{l.Inheritable, &s.inheritable},
		{l.Ambient, &s.ambient},
	} {
		for _, name := range set.names {
			if n := slices.Index(capNames, strings.ToUpper(name)); n >= 0 {
				*set.bits |= 1 << n
			} else if !slices.Contains(unknown, name) {
				unknown = append(unknown, name)
			}
		}
	}
	return s, unknown
}

// warnOfCapabilities tells of what is asked for and left out: a container may
// not fail for it (runtime-spec, config.md, "Linux Process").
func warnOfCapabilities(l *specs.LinuxCapabilities, log *slog.Logger) {
	sets, unknown := capabilitySets(l)
	if len(unknown) > 0 {
		log.Warn("process.capabilities: ignored, no capability of this name is known: " + strings.Join(unknown, ", "))
	}
	for n, name := range capNames {
		if lacks := sets.ambient &^ (sets.permitted & sets.inheritable); lacks&(1<<n) != 0 {
			log.Warn("process.capabilities.ambient: can't raise ambient capability " + name + ": it must be permitted and inheritable too")
		}
	}
}

// clamp takes away what cannot be given. A bounding set of the host without
// some capability makes a privileged container one without it too.
func (s *capSets) clamp(have uint64) {
	for _, set := range []*uint64{&s.bounding, &s.effective, &s.permitted, &s.inheritable, &s.ambient} {
		*set &= have
	}
	s.ambient &= s.permitted & s.inheritable
}
