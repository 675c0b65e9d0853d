package option

import (
	"fmt"
	"net/netip"
	"path"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/blkiodev"
	"github.com/moby/moby/api/types/container"
)

func checkAttach(s string) (string, error) {
	s = strings.ToLower(s)
	switch s {
	case "stdin", "stdout", "stderr":
		return s, nil
	}
	return "", fmt.Errorf("valid streams are STDIN, STDOUT and STDERR")
}

func checkIP(s string) (string, error) {
	if _, err := netip.ParseAddr(strings.TrimSpace(s)); err != nil {
		return "", fmt.Errorf("IP address is not correctly formatted: %s", s)
	}
	return strings.TrimSpace(s), nil
}

// checkDomain accepts a search domain; "." alone means none.
func checkDomain(s string) (string, error) {
	s = strings.TrimSpace(s)
	if s == "." {
		return s, nil
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		bad := func(r rune) bool {
			return r != '-' && r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
		}
		if label == "" || len(label) > 63 || label[0] == '-' || strings.ContainsFunc(label, bad) {
			return "", fmt.Errorf("%s is not a valid domain", s)
		}
	}
	return s, nil
}

// checkSysctl accepts what the kernel keeps per namespace.
func checkSysctl(s string) (string, error) {
	name, _, ok := strings.Cut(s, "=")
	switch name {
	case "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax",
		"kernel.shmmni", "kernel.shm_rmid_forced":
	default:
		ok = ok && (strings.HasPrefix(name, "net.") || strings.HasPrefix(name, "fs.mqueue."))
	}
	if !ok {
		return "", fmt.Errorf("sysctl '%s' is not allowed", s)
	}
	return s, nil
}

// device splits PATH:VALUE of the block device limits.
func device(s string) (dev, value string, err error) {
	dev, value, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(value, ":") {
		return "", "", fmt.Errorf("bad format: %s", s)
	}
	if !strings.HasPrefix(dev, "/dev/") {
		return "", "", fmt.Errorf("bad format for device path: %s", s)
	}
	return dev, value, nil
}

func checkWeight(s string) (string, error) {
	_, v, err := device(s)
	if err != nil {
		return "", err
	}
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil || (n > 0 && (n < 10 || n > 1000)) {
		return "", fmt.Errorf("invalid weight for device: %s", s)
	}
	return s, nil
}

func checkBps(s string) (string, error) {
	_, v, err := device(s)
	if err != nil {
		return "", err
	}
	if n, err := units.RAMInBytes(v); err != nil || n < 0 {
		return "", fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>[<unit>]. Number must be a positive integer. Unit is optional and can be kb, mb, or gb", s)
	}
	return s, nil
}

func checkIOps(s string) (string, error) {
	_, v, err := device(s)
	if err != nil {
		return "", err
	}
	if _, err := strconv.ParseUint(v, 10, 64); err != nil {
		return "", fmt.Errorf("invalid rate for device: %s. The correct format is <device-path>:<number>. Number must be a positive integer", s)
	}
	return s, nil
}

// throttles reads limits that were checked when they were set.
func throttles(list []string) []*blkiodev.ThrottleDevice {
	var out []*blkiodev.ThrottleDevice
	for _, s := range list {
		dev, v, _ := strings.Cut(s, ":")
		n, err := units.RAMInBytes(v)
		if err == nil {
			out = append(out, &blkiodev.ThrottleDevice{Path: dev, Rate: uint64(n)})
		}
	}
	return out
}

func weights(list []string) []*blkiodev.WeightDevice {
	var out []*blkiodev.WeightDevice
	for _, s := range list {
		dev, v, _ := strings.Cut(s, ":")
		n, err := strconv.ParseUint(v, 10, 16)
		if err == nil {
			out = append(out, &blkiodev.WeightDevice{Path: dev, Weight: uint16(n)})
		}
	}
	return out
}

// checkDeviceRule accepts "c 1:3 rwm", "b *:* r", "a 8:* m".
func checkDeviceRule(s string) (string, error) {
	bad := fmt.Errorf("invalid device cgroup format '%s'", s)
	f := strings.Fields(s)
	if len(f) != 3 || !strings.Contains("acb", f[0]) || len(f[0]) != 1 || strings.Trim(f[2], "rwm") != "" || len(f[2]) > 3 {
		return "", bad
	}
	major, minor, ok := strings.Cut(f[1], ":")
	for _, n := range []string{major, minor} {
		if _, err := strconv.ParseUint(n, 10, 32); err != nil && n != "*" {
			return "", bad
		}
	}
	if !ok {
		return "", bad
	}
	return s, nil
}

// parseDevice reads HOST[:CONTAINER][:PERMISSIONS].
func parseDevice(s string) (container.DeviceMapping, error) {
	parts := strings.Split(s, ":")
	d := container.DeviceMapping{PathOnHost: parts[0], PathInContainer: parts[0], CgroupPermissions: "rwm"}
	switch len(parts) {
	case 1:
	case 2:
		if isMode(parts[1]) {
			d.CgroupPermissions = parts[1]
		} else {
			d.PathInContainer = parts[1]
		}
	case 3:
		d.PathInContainer, d.CgroupPermissions = parts[1], parts[2]
	default:
		return d, fmt.Errorf("invalid device specification: %s", s)
	}
	if d.PathInContainer == "" {
		d.PathInContainer = d.PathOnHost
	}
	if !path.IsAbs(d.PathInContainer) {
		return d, fmt.Errorf("%s is not an absolute path", d.PathInContainer)
	}
	if !isMode(d.CgroupPermissions) {
		return d, fmt.Errorf("bad mode specified: %s", d.CgroupPermissions)
	}
	return d, nil
}

func isMode(s string) bool {
	return s != "" && len(s) <= 3 && strings.Trim(s, "rwm") == ""
}

// isCDI reports whether s is a CDI device name, VENDOR/CLASS=NAME.
func isCDI(s string) bool {
	kind, name, ok := strings.Cut(s, "=")
	vendor, class, slash := strings.Cut(kind, "/")
	return ok && slash && vendor != "" && class != "" && name != "" && !strings.Contains(class, "/")
}
