package rootfs

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// paxXattr begins the PAX records that carry xattrs.
const paxXattr = "SCHILY.xattr."

// Pack writes what is at name as a tar whose names begin with its base name, or
// with "." where name is the root or ends in "/.". Sockets are left out, and so is
// what vanishes meanwhile.
func (r *Root) Pack(ctx context.Context, w io.Writer, name string) error {
	parent, base, err := r.find(name)
	if err != nil {
		return err
	}
	defer unix.Close(parent)
	as := path.Base(clean(name))
	if as == "/" || strings.HasSuffix(name, "/.") {
		as = "."
	}
	p := &packer{ctx: ctx, tw: tar.NewWriter(w), seen: map[inode]string{}}
	if err := p.add(parent, base, as); err != nil {
		return fmt.Errorf("pack %s: %w", name, err)
	}
	return p.tw.Close()
}

// PackRoot writes all of the root, with names that begin below it.
func (r *Root) PackRoot(ctx context.Context, w io.Writer) error {
	fd, err := r.open("/", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), "/")
	defer d.Close()
	p := &packer{ctx: ctx, tw: tar.NewWriter(w), seen: map[inode]string{}}
	if err := p.children(d, ""); err != nil {
		return fmt.Errorf("pack root: %w", err)
	}
	return p.tw.Close()
}

type inode struct{ dev, ino uint64 }

type packer struct {
	ctx  context.Context
	tw   *tar.Writer
	seen map[inode]string // files with several names, by the first one
}

// add writes base in dir, and all below it, under the name as.
func (p *packer) add(dir int, base, as string) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	st, err := statAt(dir, base)
	if err != nil {
		return err
	}
	hdr := header(st, as)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return p.directory(dir, base, hdr)
	case unix.S_IFREG:
		return p.file(dir, base, hdr, st)
	case unix.S_IFLNK:
		if hdr.Linkname, err = readlinkAt(dir, base); err != nil {
			return err
		}
		hdr.Typeflag = tar.TypeSymlink
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	default:
		return nil
	}
	return p.tw.WriteHeader(hdr)
}

func header(st unix.Stat_t, as string) *tar.Header {
	return &tar.Header{
		Name: as, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
	}
}

func (p *packer) directory(dir int, base string, hdr *tar.Header) error {
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	d := os.NewFile(uintptr(fd), base)
	defer d.Close()
	as := hdr.Name
	hdr.Typeflag, hdr.Name = tar.TypeDir, as+"/"
	if hdr.PAXRecords, err = xattrs(fd); err != nil {
		return err
	}
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	return p.children(d, as+"/")
}

// children adds what is in the directory d, with names that begin with prefix.
func (p *packer) children(d *os.File, prefix string) error {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, n := range names {
		if err := p.add(int(d.Fd()), n, prefix+n); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	return nil
}

func (p *packer) file(dir int, base string, hdr *tar.Header, st unix.Stat_t) error {
	hdr.Typeflag = tar.TypeReg
	id := inode{st.Dev, st.Ino}
	if first, again := p.seen[id]; again && st.Nlink > 1 {
		hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
		return p.tw.WriteHeader(hdr)
	}
	// What was a file may be a fifo by now, whose open would wait.
	fd, err := unix.Openat(dir, base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), base)
	defer f.Close()
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	hdr.Size = st.Size
	if hdr.PAXRecords, err = xattrs(fd); err != nil {
		return err
	}
	if err := p.tw.WriteHeader(hdr); err != nil {
		return err
	}
	if st.Nlink > 1 {
		p.seen[id] = hdr.Name
	}
	n, err := io.Copy(p.tw, io.LimitReader(f, st.Size))
	if err != nil {
		return err
	}
	// One that has shrunk is filled up, as tar(1) does.
	_, err = io.CopyN(p.tw, zeros{}, st.Size-n)
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// xattrs gives those that have a meaning elsewhere: capabilities of a program, and
// the user's own.
func xattrs(fd int) (map[string]string, error) {
	size, err := unix.Flistxattr(fd, nil)
	if err != nil || size == 0 {
		return nil, ignoreUnsupported(err)
	}
	list := make([]byte, size)
	if size, err = unix.Flistxattr(fd, list); err != nil {
		return nil, ignoreUnsupported(err)
	}
	var records map[string]string
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:size]), "\x00"), "\x00") {
		if name != "security.capability" && !strings.HasPrefix(name, "user.") {
			continue
		}
		value := make([]byte, 64<<10) // XATTR_SIZE_MAX
		n, err := unix.Fgetxattr(fd, name, value)
		if err != nil {
			continue // it has just gone
		}
		if records == nil {
			records = map[string]string{}
		}
		records[paxXattr+name] = string(value[:n])
	}
	return records, nil
}

func ignoreUnsupported(err error) error {
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.ERANGE) {
		return nil
	}
	return err
}
