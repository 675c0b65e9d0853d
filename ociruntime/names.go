package ociruntime

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// callNumbers are the system calls that a table may make. "set" is the
// machine's own: the first argument is the result.
var callNumbers = map[string]int{
	"set":               -1,
	"capset":            unix.SYS_CAPSET,
	"chdir":             unix.SYS_CHDIR,
	"chroot":            unix.SYS_CHROOT,
	"clock_gettime":     unix.SYS_CLOCK_GETTIME,
	"clone":             unix.SYS_CLONE,
	"close":             unix.SYS_CLOSE,
	"close_range":       unix.SYS_CLOSE_RANGE,
	"dup3":              unix.SYS_DUP3,
	"execve":            unix.SYS_EXECVE,
	"exit_group":        unix.SYS_EXIT_GROUP,
	"faccessat2":        unix.SYS_FACCESSAT2,
	"fchdir":            unix.SYS_FCHDIR,
	"fchmod":            unix.SYS_FCHMOD,
	"fchmodat":          unix.SYS_FCHMODAT,
	"fchown":            unix.SYS_FCHOWN,
	"fchownat":          unix.SYS_FCHOWNAT,
	"fsconfig":          unix.SYS_FSCONFIG,
	"fsmount":           unix.SYS_FSMOUNT,
	"fsopen":            unix.SYS_FSOPEN,
	"fsetxattr":         unix.SYS_FSETXATTR,
	"ioctl":             unix.SYS_IOCTL,
	"ioprio_set":        unix.SYS_IOPRIO_SET,
	"keyctl":            unix.SYS_KEYCTL,
	"mkdirat":           unix.SYS_MKDIRAT,
	"mknodat":           unix.SYS_MKNODAT,
	"mount":             unix.SYS_MOUNT,
	"mount_setattr":     unix.SYS_MOUNT_SETATTR,
	"move_mount":        unix.SYS_MOVE_MOUNT,
	"open_tree":         unix.SYS_OPEN_TREE,
	"openat":            unix.SYS_OPENAT,
	"openat2":           unix.SYS_OPENAT2,
	"personality":       unix.SYS_PERSONALITY,
	"pivot_root":        unix.SYS_PIVOT_ROOT,
	"prctl":             unix.SYS_PRCTL,
	"prlimit64":         unix.SYS_PRLIMIT64,
	"read":              unix.SYS_READ,
	"sched_setattr":     unix.SYS_SCHED_SETATTR,
	"rt_sigaction":      unix.SYS_RT_SIGACTION,
	"seccomp":           unix.SYS_SECCOMP,
	"sendmsg":           unix.SYS_SENDMSG,
	"set_mempolicy":     unix.SYS_SET_MEMPOLICY,
	"setdomainname":     unix.SYS_SETDOMAINNAME,
	"setgroups":         unix.SYS_SETGROUPS,
	"sethostname":       unix.SYS_SETHOSTNAME,
	"setns":             unix.SYS_SETNS,
	"setresgid":         unix.SYS_SETRESGID,
	"setresuid":         unix.SYS_SETRESUID,
	"setsid":            unix.SYS_SETSID,
	"sendfile":          unix.SYS_SENDFILE,
	"socket":            unix.SYS_SOCKET,
	"symlinkat":         unix.SYS_SYMLINKAT,
	"umask":             unix.SYS_UMASK,
	"umount2":           unix.SYS_UMOUNT2,
	"unlinkat":          unix.SYS_UNLINKAT,
	"unshare":           unix.SYS_UNSHARE,
	"write":             unix.SYS_WRITE,
	"sched_setaffinity": unix.SYS_SCHED_SETAFFINITY,
}

// bit is a flag and its name.
type bit struct {
	value uint64
	name  string
}

var cloneFlags = []bit{
	{unix.CLONE_NEWTIME, "NEWTIME"},
	{unix.CLONE_NEWNS, "NEWNS"},
	{unix.CLONE_NEWCGROUP, "NEWCGROUP"},
	{unix.CLONE_NEWUTS, "NEWUTS"},
	{unix.CLONE_NEWIPC, "NEWIPC"},
	{unix.CLONE_NEWUSER, "NEWUSER"},
	{unix.CLONE_NEWPID, "NEWPID"},
	{unix.CLONE_NEWNET, "NEWNET"},
	{unix.CLONE_PARENT, "PARENT"},
}

var openFlags = []bit{
	{unix.O_WRONLY, "O_WRONLY"},
	{unix.O_RDWR, "O_RDWR"},
	{unix.O_CREAT, "O_CREAT"},
	{unix.O_EXCL, "O_EXCL"},
	{unix.O_NOCTTY, "O_NOCTTY"},
	{unix.O_DIRECTORY, "O_DIRECTORY"},
	{unix.O_NOFOLLOW, "O_NOFOLLOW"},
	{unix.O_CLOEXEC, "O_CLOEXEC"},
	{unix.O_PATH, "O_PATH"},
}

var resolveFlags = []bit{
	{unix.RESOLVE_NO_XDEV, "NO_XDEV"},
	{unix.RESOLVE_NO_MAGICLINKS, "NO_MAGICLINKS"},
	{unix.RESOLVE_NO_SYMLINKS, "NO_SYMLINKS"},
	{unix.RESOLVE_BENEATH, "BENEATH"},
	{unix.RESOLVE_IN_ROOT, "IN_ROOT"},
}

var mountAttrs = []bit{
	{unix.MOUNT_ATTR_RDONLY, "RDONLY"},
	{unix.MOUNT_ATTR_NOSUID, "NOSUID"},
	{unix.MOUNT_ATTR_NODEV, "NODEV"},
	{unix.MOUNT_ATTR_NOEXEC, "NOEXEC"},
	{unix.MOUNT_ATTR_NOATIME, "NOATIME"},
	{unix.MOUNT_ATTR_STRICTATIME, "STRICTATIME"},
	{unix.MOUNT_ATTR_NODIRATIME, "NODIRATIME"},
	{unix.MOUNT_ATTR_IDMAP, "IDMAP"},
	{unix.MOUNT_ATTR_NOSYMFOLLOW, "NOSYMFOLLOW"},
}

var propagations = []bit{
	{unix.MS_PRIVATE, "private"},
	{unix.MS_SLAVE, "slave"},
	{unix.MS_SHARED, "shared"},
	{unix.MS_UNBINDABLE, "unbindable"},
}

// flagNames spells v with the names that it holds.
func flagNames(v uint64, bits []bit) []string {
	var names []string
	for _, b := range bits {
		if v&b.value == b.value {
			names = append(names, b.name)
			v &^= b.value
		}
	}
	if v != 0 {
		names = append(names, fmt.Sprintf("0x%x", v))
	}
	return names
}

func describeAttr(a treeAttr) string {
	s := "mount_setattr("
	for _, part := range []struct {
		sign  string
		names []string
	}{
		{"+", flagNames(a.attr.Attr_set, mountAttrs)},
		{"-", flagNames(a.attr.Attr_clr, mountAttrs)},
		{"", flagNames(a.attr.Propagation, propagations)},
	} {
		for _, n := range part.names {
			s += part.sign + n + " "
		}
	}
	if a.recursive {
		s += "recursive"
	}
	return s + ")"
}
