package volume

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// Size of the volume's content on disk in bytes; a file with several names counts
// once. Errors: NotFound, and the end of ctx.
func (s *Store) Size(ctx context.Context, name string) (int64, error) {
	v, err := s.Volume(name)
	if err != nil {
		return 0, err
	}
	type file struct{ dev, ino uint64 }
	seen := map[file]bool{}
	var sum int64
	err = filepath.WalkDir(v.Path, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if errors.Is(err, fs.ErrNotExist) { // it went while we looked
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return nil
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		if !ok || e.IsDir() {
			return nil
		}
		if st.Nlink > 1 {
			f := file{uint64(st.Dev), st.Ino}
			if seen[f] {
				return nil
			}
			seen[f] = true
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}
