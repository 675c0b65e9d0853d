// Package atomicfile replaces a file whole, so that a reader, or a crash at any
// instruction, sees the old content or the new and never a part.
package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/gantryd/gantry/internal/errs"
)

// Write replaces name with data by a temporary file in the same directory and
// rename(2). It does not fsync: callers whose data must outlive a power cut use
// WriteSync.
func Write(name string, data []byte, perm os.FileMode) error {
	return write(name, data, perm, false)
}

// WriteSync is Write, with the file and its directory on disk before it returns.
func WriteSync(name string, data []byte, perm os.FileMode) error {
	return write(name, data, perm, true)
}

func write(name string, data []byte, perm os.FileMode, sync bool) (err error) {
	dir := filepath.Dir(name)
	f, err := os.CreateTemp(dir, "."+filepath.Base(name)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, cause(err))
	}
	defer errs.Undo(&err, func() error { return os.Remove(f.Name()) })
	if err := fill(f, data, perm, sync); err != nil {
		return fmt.Errorf("write %s: %w", name, cause(err))
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if !sync {
		return nil
	}
	return SyncDir(dir)
}

// cause is err without the name of the temporary file, which means nothing to anybody.
func cause(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}

// SyncDir has what names a directory has outlive a power cut.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// fill writes f and closes it, whatever happens.
func fill(f *os.File, data []byte, perm os.FileMode, sync bool) (err error) {
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if sync {
		return f.Sync()
	}
	return nil
}
