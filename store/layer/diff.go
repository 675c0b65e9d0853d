package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/mount"
)

// Diff writes the tar of what upper changed against lower, both given as the
// mounts of snapshots. Where upper is an overlay on just what lower is, its
// topmost directory is all that changed; else both are mounted and compared.
func Diff(ctx context.Context, lower, upper []mount.Mount, w io.Writer) error {
	d := &differ{tar: tar.NewWriter(w), links: map[inode]string{}, buf: make([]byte, copySize)}
	var err error
	if dir := changedDir(lower, upper); dir != "" {
		err = d.root(dir, func(fd int) error { return d.overlay(ctx, fd, ".") })
	} else {
		err = within(upper, func(now string) error {
			if len(lower) == 0 {
				return d.root(now, func(fd int) error { return d.compare(ctx, -1, fd, ".") })
			}
			return within(lower, func(before string) error {
				return d.root(before, func(old int) error {
					return d.root(now, func(fd int) error { return d.compare(ctx, old, fd, ".") })
				})
			})
		})
	}
	if err == nil {
		err = d.tar.Close()
	}
	if err != nil {
		return fmt.Errorf("write diff: %w", err)
	}
	return nil
}

// changedDir is the directory that holds all that upper changed against lower,
// empty where there is none. An upper directory that refers to lower ones by
// anything but names (overlayfs.rst, "redirect_dir", "Metadata only copy up") does not.
func changedDir(lower, upper []mount.Mount) string {
	if enabled("redirect_dir") || enabled("metacopy") {
		return ""
	}
	top, below := overlayDirs(upper)
	if top == "" && len(below) > 1 { // a view
		top, below = below[0], below[1:]
	}
	_, before := overlayDirs(lower)
	if len(lower) == 1 && lower[0].Type == "bind" {
		before = []string{lower[0].Source}
	}
	if !slices.Equal(before, below) {
		return ""
	}
	return top
}

// enabled reads a switch of the overlay module; without the module's word it is on.
func enabled(parameter string) bool {
	data, err := os.ReadFile("/sys/module/overlay/parameters/" + parameter)
	return err != nil || strings.TrimSpace(string(data)) != "N"
}

type inode struct{ dev, ino uint64 }

// differ writes one diff. A container may be running on what is read: every name
// is looked up in an open directory and never followed, and what is opened is
// looked at before it is read.
type differ struct {
	tar   *tar.Writer
	links map[inode]string // where a file with several names is in the tar
	above []*passed        // the directories on the way down
	buf   []byte
}

// passed is a directory that is in both; it is in the tar only if something is
// that it leads to.
type passed struct {
	name    string
	fd      int
	st      unix.Stat_t
	written bool
}

func (d *differ) root(dir string, fn func(fd int) error) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	return fn(fd)
}

// overlay writes all that is in an overlay's upper directory.
func (d *differ) overlay(ctx context.Context, fd int, name string) error {
	if opaque(fd) {
		if err := d.whiteout(name, opaqueMarker); err != nil {
			return err
		}
	}
	return d.each(ctx, fd, name, func(base, at string, st unix.Stat_t) error {
		switch {
		case kindOf(st) == unix.S_IFCHR && st.Rdev == 0:
			return d.whiteout(name, whiteoutPrefix+base)
		case kindOf(st) != unix.S_IFDIR:
			return d.entry(fd, base, at, st)
		}
		return descend(fd, base, func(sub int) error {
			if err := d.directory(sub, at, st); err != nil {
				return err
			}
			return d.overlay(ctx, sub, at)
		})
	})
}

func opaque(fd int) bool {
	var mark [1]byte
	for _, name := range []string{opaqueXattr, "user.overlay.opaque"} {
		if n, err := unix.Fgetxattr(fd, name, mark[:]); err == nil && n == 1 && mark[0] == 'y' {
			return true
		}
	}
	return false
}

// compare writes what the directory fd has otherwise than old, which is -1 where
// there was none.
func (d *differ) compare(ctx context.Context, old, fd int, name string) error {
	gone := map[string]struct{}{}
	if old >= 0 {
		before, err := readNames(old)
		if err != nil {
			return err
		}
		for _, n := range before {
			gone[n] = struct{}{}
		}
	}
	err := d.each(ctx, fd, name, func(base, at string, st unix.Stat_t) error {
		var was unix.Stat_t
		_, known := gone[base]
		delete(gone, base)
		if known {
			if err := unix.Fstatat(old, base, &was, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
		}
		if kindOf(st) == unix.S_IFDIR {
			return d.compareDir(ctx, old, fd, base, at, st, was)
		}
		if known {
			if same, err := d.same(old, fd, base, st, was); same || err != nil {
				return err
			}
		}
		return d.entry(fd, base, at, st)
	})
	if err != nil {
		return err
	}
	for _, base := range slices.Sorted(maps.Keys(gone)) {
		if err := d.whiteout(name, whiteoutPrefix+base); err != nil {
			return err
		}
	}
	return nil
}

// compareDir compares the directory base with what was there, if it was one.
func (d *differ) compareDir(ctx context.Context, old, fd int, base, name string, st, was unix.Stat_t) error {
	return descend(fd, base, func(sub int) error {
		if kindOf(was) != unix.S_IFDIR {
			if err := d.directory(sub, name, st); err != nil {
				return err
			}
			return d.compare(ctx, -1, sub, name)
		}
		return descend(old, base, func(before int) error {
			d.above = append(d.above, &passed{name: name, fd: sub, st: st})
			defer func() { d.above = d.above[:len(d.above)-1] }()
			same, err := sameAttributes(before, sub, st, was)
			if err == nil && !same {
				err = d.flush()
			}
			if err != nil {
				return err
			}
			return d.compare(ctx, before, sub, name)
		})
	})
}

// same says whether base is what it was.
func (d *differ) same(old, fd int, base string, st, was unix.Stat_t) (bool, error) {
	if kindOf(st) != kindOf(was) || st.Size != was.Size || st.Rdev != was.Rdev {
		return false, nil
	}
	a, err := openPath(old, base)
	if err != nil {
		return false, err
	}
	defer unix.Close(a)
	b, err := openPath(fd, base)
	if err != nil {
		return false, err
	}
	defer unix.Close(b)
	if same, err := sameAttributes(a, b, st, was); !same || err != nil {
		return false, err
	}
	switch kindOf(st) {
	case unix.S_IFLNK:
		now, err := readlinkat(fd, base)
		if err != nil {
			return false, err
		}
		before, err := readlinkat(old, base)
		return now == before, err
	case unix.S_IFREG:
		// A layer's tar has whole seconds: such a time does not tell two contents apart.
		if st.Mtim.Nsec == 0 {
			return d.sameContent(a, b)
		}
	}
	return true, nil
}

// sameAttributes compares owner, mode, time and xattrs; both are open, by path only
// or more.
func sameAttributes(a, b int, st, was unix.Stat_t) (bool, error) {
	if st.Mode != was.Mode || st.Uid != was.Uid || st.Gid != was.Gid || st.Mtim != was.Mtim {
		return false, nil
	}
	before, err := carried(a)
	if err != nil {
		return false, err
	}
	now, err := carried(b)
	return maps.Equal(before, now), err
}

func (d *differ) sameContent(a, b int) (bool, error) {
	x, err := reopen(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := reopen(b)
	if err != nil {
		return false, err
	}
	defer y.Close()
	half := len(d.buf) / 2
	p, q := d.buf[:half], d.buf[half:]
	for {
		n, err := io.ReadFull(x, p)
		m, merr := io.ReadFull(y, q)
		if n != m || !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return true, nil
		}
		if err = errors.Join(err, merr); err != nil {
			return false, err
		}
	}
}

// each calls fn for what is in the directory fd, in order. What a container
// removes, or makes another kind of thing, meanwhile is left out.
func (d *differ) each(ctx context.Context, fd int, dir string, fn func(base, name string, st unix.Stat_t) error) error {
	names, err := readNames(fd)
	if err != nil {
		return fmt.Errorf("%q: %w", dir, err)
	}
	slices.Sort(names)
	for _, base := range names {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		if strings.HasPrefix(base, whiteoutPrefix) {
			continue // in a layer it would mean something else
		}
		var st unix.Stat_t
		err := unix.Fstatat(fd, base, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			err = fn(base, path.Join(dir, base), st)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			return err
		}
	}
	return nil
}

func kindOf(st unix.Stat_t) uint32 { return st.Mode & unix.S_IFMT }

func descend(fd int, base string, fn func(sub int) error) error {
	sub, err := unix.Openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(sub)
	return fn(sub)
}

func openPath(fd int, base string) (int, error) {
	return unix.Openat(fd, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// reopen opens for reading what is open by path, and so cannot be another thing.
func reopen(fd int) (*os.File, error) { return os.Open("/proc/self/fd/" + strconv.Itoa(fd)) }

// flush writes the directories that lead to an entry.
func (d *differ) flush() error {
	for _, p := range d.above {
		if p.written {
			continue
		}
		p.written = true
		if err := d.header(p.fd, p.name+"/", tar.TypeDir, "", p.st); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) directory(fd int, name string, st unix.Stat_t) error {
	if err := d.flush(); err != nil {
		return err
	}
	return d.header(fd, name+"/", tar.TypeDir, "", st)
}

func (d *differ) whiteout(dir, base string) error {
	if err := d.flush(); err != nil {
		return err
	}
	return d.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: path.Join(dir, base), ModTime: time.Unix(0, 0)})
}

// entry writes what is not a directory.
func (d *differ) entry(fd int, base, name string, st unix.Stat_t) error {
	if kindOf(st) == unix.S_IFSOCK {
		return nil // has no form in a tar, and means nothing without its server
	}
	at, err := openPath(fd, base)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	if err := unix.Fstat(at, &st); err != nil { // what it is now, and stays
		return err
	}
	if err := d.flush(); err != nil {
		return err
	}
	if st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := d.links[id]; ok {
			return d.header(at, name, tar.TypeLink, first, st)
		}
		d.links[id] = name
	}
	switch kindOf(st) {
	case unix.S_IFREG:
		return d.file(at, name, st)
	case unix.S_IFLNK:
		target, err := readlinkat(at, "")
		if err != nil {
			return err
		}
		return d.header(at, name, tar.TypeSymlink, target, st)
	case unix.S_IFCHR:
		return d.header(at, name, tar.TypeChar, "", st)
	case unix.S_IFBLK:
		return d.header(at, name, tar.TypeBlock, "", st)
	case unix.S_IFIFO:
		return d.header(at, name, tar.TypeFifo, "", st)
	}
	return nil // a directory took its place
}

// file writes as many bytes as the header says, whatever a container does to the
// file meanwhile: more are left out, and missing ones are zero.
func (d *differ) file(at int, name string, st unix.Stat_t) error {
	f, err := reopen(at)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.header(at, name, tar.TypeReg, "", st); err != nil {
		return err
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{d.tar}, io.LimitReader(f, st.Size), d.buf)
	if err != nil {
		return err
	}
	clear(d.buf)
	for n < st.Size {
		m, err := d.tar.Write(d.buf[:min(int64(len(d.buf)), st.Size-n)])
		if err != nil {
			return err
		}
		n += int64(m)
	}
	return nil
}

func (d *differ) header(fd int, name string, kind byte, target string, st unix.Stat_t) error {
	h := &tar.Header{
		Typeflag: kind, Name: name, Linkname: target, Mode: int64(st.Mode & 0o7777),
		Uid: int(st.Uid), Gid: int(st.Gid), ModTime: time.Unix(st.Mtim.Sec, 0), Format: tar.FormatPAX,
	}
	switch kind {
	case tar.TypeReg:
		h.Size = st.Size
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	}
	if kind != tar.TypeLink {
		attrs, err := carried(fd)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		for k, v := range attrs {
			if h.PAXRecords == nil {
				h.PAXRecords = map[string]string{}
			}
			h.PAXRecords[paxXattr+k] = v
		}
	}
	if err := d.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

// carried are the xattrs that a layer takes along: those of programs, file
// capabilities and ACLs. Labels of this machine's security modules and overlayfs's
// own stay here.
func carried(fd int) (map[string]string, error) {
	p := "/proc/self/fd/" + strconv.Itoa(fd) // an O_PATH descriptor has no fgetxattr
	names, err := listXattrs(func(b []byte) (int, error) { return unix.Listxattr(p, b) })
	if err != nil {
		return nil, err
	}
	var attrs map[string]string
	for _, name := range names {
		user := strings.HasPrefix(name, "user.") && !strings.HasPrefix(name, "user.overlay.")
		if !user && name != "security.capability" && !strings.HasPrefix(name, "system.posix_acl_") {
			continue
		}
		v, err := readXattr(func(b []byte) (int, error) { return unix.Getxattr(p, name, b) })
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if attrs == nil {
			attrs = map[string]string{}
		}
		attrs[name] = string(v)
	}
	return attrs, nil
}
