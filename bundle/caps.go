package bundle

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// capNames has every capability at its number (linux/capability.h).
var capNames = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
	"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
	"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
	"CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
	"CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
	"CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
	"CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
	"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
	"CAP_CHECKPOINT_RESTORE",
}

// defaultCaps is what a container has without asking, in dockerd's order.
var defaultCaps = [...]string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
	"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
	"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// capabilities that c has. The inheritable set is empty (CVE-2022-24769), and
// only root has effective ones from the start.
func (c Container) capabilities(root bool) (*specs.LinuxCapabilities, error) {
	caps, err := c.boundingCaps()
	if err != nil {
		return nil, err
	}
	if !root {
		return &specs.LinuxCapabilities{Bounding: caps}, nil
	}
	return &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}, nil
}

func (c Container) boundingCaps() ([]string, error) {
	add, err := canonicalCaps(c.CapAdd)
	if err != nil {
		return nil, fmt.Errorf("invalid CapAdd: %w", err)
	}
	drop, err := canonicalCaps(c.CapDrop)
	if err != nil {
		return nil, fmt.Errorf("invalid CapDrop: %w", err)
	}
	if c.Privileged {
		return ownCaps(), nil
	}
	base := defaultCaps[:]
	switch {
	case slices.Contains(add, "ALL"):
		base, add = ownCaps(), nil
	case slices.Contains(drop, "ALL"):
		base, drop = nil, nil
	}
	var caps []string
	for _, name := range slices.Concat(base, add) {
		if !slices.Contains(drop, name) && !slices.Contains(caps, name) {
			caps = append(caps, name)
		}
	}
	return caps, nil
}

// canonicalCaps writes names as the runtime spec does; "ALL" stays.
func canonicalCaps(names []string) ([]string, error) {
	var canonical []string
	for _, name := range names {
		full := strings.ToUpper(name)
		if full != "ALL" && !strings.HasPrefix(full, "CAP_") {
			full = "CAP_" + full
		}
		if full != "ALL" && !slices.Contains(capNames[:], full) {
			return nil, refuse("unknown capability: %q", name)
		}
		canonical = append(canonical, full)
	}
	return canonical, nil
}

// ownCaps is the most that this process can give: its own bounding set. More
// would make the runtime fail.
func ownCaps() []string {
	var caps []string
	for number, name := range capNames {
		if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, uintptr(number), 0, 0, 0); err == nil && has == 1 {
			caps = append(caps, name)
		}
	}
	return caps
}
