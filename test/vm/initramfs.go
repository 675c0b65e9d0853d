package vm

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// archive writes an initramfs: the "newc" form of cpio
// (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel).
type archive struct {
	w    io.Writer
	n    int // bytes written
	ino  int
	dirs map[string]bool
	err  error
}

func newArchive(w io.Writer) *archive { return &archive{w: w, dirs: map[string]bool{"/": true}} }

func (a *archive) write(b []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(b)
		a.n += len(b)
	}
}

func (a *archive) pad() {
	for a.n%4 != 0 {
		a.write([]byte{0})
	}
}

func (a *archive) entry(name string, mode uint32, data []byte) {
	a.ino++
	name = strings.TrimPrefix(name, "/")
	a.write(fmt.Appendf(nil, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0))
	a.write(append([]byte(name), 0))
	a.pad()
	a.write(data)
	a.pad()
}

// dir makes a directory and those above it.
func (a *archive) dir(name string) {
	name = path.Clean("/" + name)
	if a.dirs[name] {
		return
	}
	a.dir(path.Dir(name))
	a.dirs[name] = true
	a.entry(name, 0o040755, nil)
}

// file writes a file, executable if it is so on this machine.
func (a *archive) file(name string, data []byte, perm fs.FileMode) {
	a.dir(path.Dir(name))
	a.entry(name, 0o100000|uint32(perm.Perm()), data)
}

func (a *archive) symlink(target, name string) {
	a.dir(path.Dir(name))
	a.entry(name, 0o120777, []byte(target))
}

// copy copies a file of this machine.
func (a *archive) copy(from, name string) error {
	st, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	a.file(name, data, st.Mode())
	return a.err
}

// tree copies a directory of this machine.
func (a *archive) tree(from, name string) error {
	return filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		return a.copy(p, path.Join(name, rel))
	})
}

func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}
