package disk

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gantryd/gantry/store/snapshot"
)

// diskUsage counts what dir takes on disk, each inode once. A file that goes away
// meanwhile is not counted.
func diskUsage(ctx context.Context, dir string) (snapshot.Usage, error) {
	type inode struct{ dev, ino uint64 }
	var u snapshot.Usage
	linked := map[inode]struct{}{} // seen, of those with several names
	count := func(fi fs.FileInfo) {
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return
		}
		if st.Nlink > 1 && !fi.IsDir() {
			id := inode{uint64(st.Dev), st.Ino}
			if _, seen := linked[id]; seen {
				return
			}
			linked[id] = struct{}{}
		}
		u.Inodes++
		u.Size += st.Blocks * 512
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return u, err
	}
	count(fi)
	err = filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err == nil && p != dir {
			var fi fs.FileInfo
			if fi, err = e.Info(); err == nil {
				count(fi)
			}
		}
		if errors.Is(err, fs.ErrNotExist) && p != dir {
			return nil
		}
		if err != nil {
			return err
		}
		return ctx.Err()
	})
	return u, err
}
