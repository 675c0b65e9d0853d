package ociruntime

import (
	"fmt"
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

// capabilitySets reads process.capabilities; without it there are none.
func capabilitySets(l *specs.LinuxCapabilities) (s capSets, err error) {
	if l == nil {
		return s, nil
	}
	for _, set := range []struct {
		name  string
		names []string
		bits  *uint64
	}{
		{"bounding", l.Bounding, &s.bounding},
		{"effective", l.Effective, &s.effective},
		{"permitted", l.Permitted, &s.permitted},
		{"inheritable", l.Inheritable, &s.inheritable},
		{"ambient", l.Ambient, &s.ambient},
	} {
		for _, name := range set.names {
			n := slices.Index(capNames, strings.ToUpper(name))
			if n < 0 {
				return s, fmt.Errorf("process.capabilities.%s: %q is no capability", set.name, name)
			}
			*set.bits |= 1 << n
		}
	}
	return s, nil
}

// clamp takes away what cannot be given. A bounding set of the host without
// some capability makes a privileged container one without it too.
func (s *capSets) clamp(have uint64) {
	for _, set := range []*uint64{&s.bounding, &s.effective, &s.permitted, &s.inheritable, &s.ambient} {
		*set &= have
	}
	s.ambient &= s.permitted & s.inheritable
}
