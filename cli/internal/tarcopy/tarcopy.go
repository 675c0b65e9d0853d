// Package tarcopy makes the archives that `cp` sends to a container, and takes
// apart those that it gets from one.
//
// A container is not to be trusted: what it sends is written through an os.Root,
// so that no name and no symbolic link in it leads out of the destination.
package tarcopy

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Pack writes the file or directory at src to w; in the archive it is called name
// ("." for the contents of a directory).
func Pack(w io.Writer, src, name string) error {
	tw := tar.NewWriter(w)
	hardLinks := map[inode]string{}
	err := filepath.WalkDir(src, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, file)
		if err != nil {
			return err
		}
		return pack(tw, file, path.Join(name, filepath.ToSlash(rel)), hardLinks)
	})
	return errors.Join(err, tw.Close())
}

// inode tells files with several names.
type inode struct{ dev, ino uint64 }

func pack(tw *tar.Writer, file, name string, hardLinks map[inode]string) error {
	info, err := os.Lstat(file)
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket != 0 {
		return nil // tar has no such thing
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(file); err != nil {
			return err
		}
	}
	h, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	h.Name, h.Uname, h.Gname = name, "", ""
	h.Format = tar.FormatPAX
	h.AccessTime, h.ChangeTime = time.Time{}, time.Time{}
	if info.IsDir() {
		h.Name += "/"
	}
	var st unix.Stat_t
	if err := unix.Lstat(file, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: file, Err: err}
	}
	if info.Mode().IsRegular() && st.Nlink > 1 {
		key := inode{st.Dev, st.Ino}
		if first, ok := hardLinks[key]; ok {
			h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
		} else {
			hardLinks[key] = name
		}
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.CopyN(tw, f, h.Size)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return nil
}

// Unpack writes the archive r below dir. What the archive calls from is called to
// there. Owners are kept if owners is set and we may.
func Unpack(r io.Reader, dir, from, to string, owners bool) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	u := unpacker{root: root, from: path.Clean(from), to: to, owners: owners}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return u.finish()
		}
		if err != nil {
			return err
		}
		if err := u.entry(h, tr); err != nil {
			return fmt.Errorf("write %s: %w", filepath.Join(dir, u.rename(h.Name)), err)
		}
	}
}

type unpacker struct {
	root     *os.Root
	from, to string
	owners   bool
	dirs     []*tar.Header // their times and modes come last
}

// rename gives an entry the name that it has at the destination.
func (u *unpacker) rename(name string) string {
	name = path.Clean(strings.TrimLeft(name, "/"))
	if name == u.from {
		return path.Clean(u.to)
	}
	if rest, ok := strings.CutPrefix(name, u.from+"/"); ok {
		return path.Join(u.to, rest)
	}
	return name
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := filepath.FromSlash(u.rename(h.Name))
	mode := fs.FileMode(h.Mode).Perm()
	switch h.Typeflag {
	case tar.TypeDir:
		if err := u.directory(name); err != nil {
			return err
		}
		h.Name = name
		u.dirs = append(u.dirs, h)
		return nil
	case tar.TypeReg:
		if err := u.clear(name); err != nil {
			return err
		}
		if err := u.file(name, r); err != nil {
			return err
		}
		if err := u.chown(name, h); err != nil {
			return err
		}
		if err := u.root.Chmod(name, mode); err != nil {
			return err
		}
		return u.root.Chtimes(name, h.ModTime, h.ModTime)
	case tar.TypeSymlink:
		if err := u.clear(name); err != nil {
			return err
		}
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		return u.chown(name, h)
	case tar.TypeLink:
		if err := u.clear(name); err != nil {
			return err
		}
		return u.root.Link(filepath.FromSlash(u.rename(h.Linkname)), name)
	case tar.TypeXGlobalHeader:
		return nil
	}
	return fmt.Errorf("%w: devices and pipes of a container stay there", errors.ErrUnsupported)
}

// directory makes a directory that is not there yet.
func (u *unpacker) directory(name string) error {
	info, err := u.root.Lstat(name)
	switch {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return errors.New("cannot overwrite non-directory with directory")
	}
	return u.root.Mkdir(name, 0o700)
}

// clear takes away what a file, link or symbolic link replaces.
func (u *unpacker) clear(name string) error {
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.IsDir() {
		return errors.New("cannot overwrite directory with non-directory")
	}
	return u.root.Remove(name)
}

func (u *unpacker) file(name string, r io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func (u *unpacker) chown(name string, h *tar.Header) error {
	if !u.owners {
		return nil
	}
	return u.root.Lchown(name, h.Uid, h.Gid)
}

// finish gives directories their modes and times, the deepest first: writing into
// them has changed the times, and a mode may forbid it.
func (u *unpacker) finish() error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		h := u.dirs[i]
		if err := u.chown(h.Name, h); err != nil {
			return err
		}
		if err := u.root.Chmod(h.Name, fs.FileMode(h.Mode).Perm()); err != nil {
			return err
		}
		if err := u.root.Chtimes(h.Name, h.ModTime, h.ModTime); err != nil {
			return err
		}
	}
	return nil
}
