package ociruntime

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// bundleFacts looks at the bundle: what kind of thing each mount is made of,
// and where in the rootfs it goes. It changes nothing.
func bundleFacts(spec *specs.Spec, bundle string) (Facts, error) {
	f := Facts{Bundle: bundle, NotDir: map[string]bool{}, Moved: map[string]string{}, Links: map[string]string{}, Linked: map[string]bool{}, Copied: map[string][]copied{}, Mode: map[string]uint32{}}
	f.Rootfs = spec.Root.Path
	if !filepath.IsAbs(f.Rootfs) {
		f.Rootfs = filepath.Join(bundle, f.Rootfs)
	}
	root, err := unix.Open(f.Rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return f, fmt.Errorf("open root.path %s: %w", f.Rootfs, err)
	}
	defer unix.Close(root)
	for i, m := range spec.Mounts {
		if err := f.mountFacts(root, m, spec.Mounts[:i]); err != nil {
			return f, fmt.Errorf("mounts[%d] on %s: %w", i, m.Destination, err)
		}
	}
	if spec.Process != nil {
		f.Home = homeOf(root, spec.Process)
	}
	f.LastCap, f.Bounding = capabilityFacts(spec)
	f.NoSELinux = noSELinux()
	return f, nil
}

// noSELinux says that the kernel has no SELinux, or not in use: then its
// filesystem is not mounted.
func noSELinux() bool { return unix.Access("/sys/fs/selinux/enforce", unix.F_OK) != nil }

func (f *Facts) mountFacts(root int, m specs.Mount, earlier []specs.Mount) error {
	o, err := parseMountOptions(m)
	if err != nil {
		return err
	}
	dest := inRootfs(f.Rootfs, m.Destination)
	if resolveFor(dest) == 0 && !o.links.dest {
		if to, err := settle(root, dest); err != nil {
			return err
		} else if to != dest {
			f.Moved[dest] = to
		}
	}
	if src := bindSource(f.Bundle, m); o.bind && !o.remount && !broughtBy(earlier, f.Rootfs, src) {
		if target, err := os.Readlink(src); err == nil && o.links.copied {
			have, _ := linkIn(root, dest)
			f.Links[src], f.Linked[dest] = target, have == target
			return nil
		}
		stat := os.Stat
		if o.links.source {
			stat = os.Lstat
		}
		fi, err := stat(src)
		if err != nil {
			return fmt.Errorf("mount source: %w", err)
		}
		f.NotDir[src] = !fi.IsDir()
	}
	if o.copyUp && os.Geteuid() != 0 {
		if f.Copied[dest], err = f.under(dest, earlier).list(); err != nil {
			return fmt.Errorf("option tmpcopyup: %w", err)
		}
	}
	if m.Type == "tmpfs" {
		var st unix.Stat_t
		if fd, err := openIn(root, dest, unix.O_PATH); err == nil {
			if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
				f.Mode[dest] = st.Mode & 0o7777
			}
			unix.Close(fd)
		}
	}
	return nil
}

// revealing are the mounts of procfs and sysfs outside the rootfs, the last first.
func revealing(rootfs string) ([]string, error) {
	info, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("look for mounts to hide: %w", err)
	}
	defer info.Close()
	var list []string
	lines := bufio.NewScanner(info)
	for lines.Scan() {
		mount, super, _ := strings.Cut(lines.Text(), " - ")
		f := strings.Fields(mount)
		fstype, _, _ := strings.Cut(super, " ")
		if len(f) < 5 || fstype != "proc" && fstype != "sysfs" {
			continue
		}
		where := octalEscapes.Replace(f[4]) // proc_pid_mountinfo(5)
		if rel, err := filepath.Rel(rootfs, where); err != nil || !filepath.IsLocal(rel) {
			list = append(list, where)
		}
	}
	slices.Reverse(list)
	return list, lines.Err()
}

var octalEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// openIn opens name with root as the root directory: no symlink leads out.
func openIn(root int, name string, flags uint64) (int, error) {
	return unix.Openat2(root, strings.TrimPrefix(name, "/"), &unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// settle is where dest leads when its symlinks dangle in the rootfs, as
// /var/run/secrets does where /var/run is a link to a /run that is not there:
// the directories are to be made where the link points. Any other path is left
// to the kernel, which follows it when it mounts.
func settle(root int, dest string) (string, error) {
	if dest == "/" {
		return dest, nil
	}
	fd, err := openIn(root, dest, unix.O_PATH)
	if err == nil {
		unix.Close(fd)
		return dest, nil
	}
	return followLinks(root, dest)
}

// followLinks is dest without symlinks, in root: what is not there is no link.
func followLinks(root int, dest string) (string, error) {
	const maxLinks = 40 // as the kernel
	rest, at := strings.Split(strings.TrimPrefix(path.Clean("/"+dest), "/"), "/"), "/"
	for links := 0; len(rest) > 0; {
		next := path.Join(at, rest[0])
		target, ok := linkIn(root, next)
		if !ok {
			at, rest = next, rest[1:]
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("destination %s: %w", dest, unix.ELOOP)
		}
		if path.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(strings.Trim(path.Clean("/"+path.Join(at, target)), "/"), "/"), rest[1:]...)
		at = "/"
	}
	return at, nil
}

// linkIn reads the symlink name in root, if that is one.
func linkIn(root int, name string) (target string, ok bool) {
	fd, err := openIn(root, name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	if err != nil {
		return "", false
	}
	return string(buf[:n]), true
}

// homeOf is the home directory of the process's user in the container's
// /etc/passwd, "/" when it is not there.
func homeOf(root int, p *specs.Process) string {
	for _, e := range slices.Backward(p.Env) {
		if value, ok := strings.CutPrefix(e, "HOME="); ok && value != "" {
			return ""
		} else if ok {
			break
		}
	}
	fd, err := openIn(root, "etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return "/"
	}
	file := os.NewFile(uintptr(fd), "etc/passwd")
	defer file.Close()
	if fi, err := file.Stat(); err != nil || !fi.Mode().IsRegular() {
		return "/"
	}
	const most = 4 << 20
	lines := bufio.NewScanner(io.LimitReader(file, most))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) == 7 && fields[2] == strconv.FormatUint(uint64(p.User.UID), 10) {
			return fields[5]
		}
	}
	return "/"
}

// capabilityFacts are the highest capability of this kernel and those that can
// be given: a new user namespace has them all.
func capabilityFacts(spec *specs.Spec) (last int, bounding uint64) {
	last = len(capNames) - 1
	if b, err := os.ReadFile("/proc/sys/kernel/cap_last_cap"); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && n < 64 {
			last = n
		}
	}
	bounding = 1<<(last+1) - 1
	if spec.Linux != nil {
		for _, n := range spec.Linux.Namespaces {
			if n.Type == specs.UserNamespace {
				return last, bounding
			}
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&head, &data[0]); err == nil {
		bounding &= uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32
	}
	return last, bounding
}

// errIsGone says that a process or file is not there any more.
func errIsGone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT) || errors.Is(err, os.ErrNotExist)
}
