package metrics

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
)

// Join moves this process into the cgroup path, in every hierarchy that has it;
// one must.
func Join(path string) error {
	mounts, err := mountPoints()
	if err != nil {
		return err
	}
	joined := false
	for _, m := range mounts {
		procs := filepath.Join(m.dir(path), "cgroup.procs")
		switch err := os.WriteFile(procs, []byte("0"), 0); {
		case err == nil:
			joined = true
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("join cgroup %s: %w", path, err)
		}
	}
	if !joined {
		return fmt.Errorf("join cgroup %s: no hierarchy has it: %w", path, errdefs.ErrNotFound)
	}
	return nil
}
