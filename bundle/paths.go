package bundle

import "path/filepath"

// DefaultMaskedPaths is what a container must not see of /proc and /sys. Beyond
// the paths of old: interrupt counts and CPU thermal events tell of the
// neighbours' work, and powercap measures the power that their secrets take
// (CVE-2020-8694, CVE-2020-12912; GHSA-6fw5-f8r9-fgfm).
func DefaultMaskedPaths() []string {
	paths := []string{
		"/proc/acpi",
		"/proc/asound",
		"/proc/interrupts",
		"/proc/kcore",
		"/proc/keys",
		"/proc/latency_stats",
		"/proc/sched_debug",
		"/proc/scsi",
		"/proc/timer_list",
		"/proc/timer_stats",
		"/sys/devices/virtual/powercap",
		"/sys/firmware",
	}
	thermal, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	if err != nil {
		return paths
	}
	return append(paths, thermal...)
}

// DefaultReadonlyPaths is what a container may see of /proc and not write.
func DefaultReadonlyPaths() []string {
	return []string{
		"/proc/bus",
		"/proc/fs",
		"/proc/irq",
		"/proc/sys",
		"/proc/sysrq-trigger",
	}
}
