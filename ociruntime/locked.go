package ociruntime

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// lockable are the flags of a mount that the root of a user namespace may not take
// away, where the mount came from outside (mount_namespaces(7), "locked"). Those of
// access times may not be changed at all.
const lockable = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// checkLocked refuses what the kernel would, were the mount made inside: the parent
// makes it, and may do anything.
func (f File) checkLocked() error {
	if f.Locked == nil {
		return nil
	}
	have, err := mountFlags(f.Path)
	if err != nil {
		return err
	}
	if taken := have & f.Locked.Attr_clr & lockable; taken != 0 {
		return fmt.Errorf("%s %s: clear %s in a user namespace: %w", f.Name, f.Path, strings.Join(flagNames(taken, mountAttrs), "|"), unix.EPERM)
	}
	const times = unix.MOUNT_ATTR__ATIME | unix.MOUNT_ATTR_NODIRATIME
	if f.Locked.Attr_clr&unix.MOUNT_ATTR__ATIME != 0 && (have^f.Locked.Attr_set)&times != 0 {
		return fmt.Errorf("%s %s: change access times in a user namespace: %w", f.Name, f.Path, unix.EPERM)
	}
	return nil
}

// mountFlags are the flags of the mount that a path lies on, as mount_setattr(2) has them.
func mountFlags(path string) (uint64, error) {
	id, err := mountID(path)
	if err != nil {
		return 0, err
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(info)) {
		f := strings.Fields(line) // proc_pid_mountinfo(5)
		if len(f) < 6 || f[0] != strconv.FormatUint(id, 10) {
			continue
		}
		flags := uint64(unix.MOUNT_ATTR_STRICTATIME) // which it does not show
		for name := range strings.SplitSeq(f[5], ",") {
			o := attrOptions[name]
			flags = flags&^o.clear | o.set
		}
		return flags, nil
	}
	return 0, fmt.Errorf("the mount of %s is not in mountinfo", path)
}
