package shim

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/taskapi"
	"github.com/gantryd/gantry/shim/internal/ttrpc"
)

// killedStatus is the exit status of a container whose shim was gone before it:
// 128 and SIGKILL, which is what happened to it at the latest now.
const killedStatus = 128 + 9

// deleteDead takes apart what a shim left that did not get to it itself, and
// prints how the container ended.
func deleteDead(a args, stdout io.Writer) error {
	bundle, err := a.bundleDir()
	if err != nil {
		return err
	}
	reaper, err := newReaper()
	if err != nil {
		return err
	}
	e, err := loadExit(bundle)
	if errors.Is(err, fs.ErrNotExist) {
		e, err = exit{status: killedStatus, at: time.Now()}, nil
	}
	errs := []error{err}
	rec, err := loadRecord(bundle)
	switch {
	case err == nil:
		if err := rec.runtime(bundle, reaper).delete(true); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
		errs = append(errs, removeSocket(rec.Attach))
	case !errors.Is(err, fs.ErrNotExist): // without one nothing was created
		errs = append(errs, err)
	}
	errs = append(errs, mount.Unmount(filepath.Join(bundle, "rootfs")))
	address, err := os.ReadFile(filepath.Join(bundle, addressFile))
	if err == nil {
		err = removeSocket(strings.TrimPrefix(string(address), "unix://"))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	_, err = stdout.Write(wire.Marshal(&taskapi.DeleteResponse{
		Pid:        uint32(loadPid(bundle)),
		ExitStatus: e.status,
		ExitedAt:   taskapi.At(e.at),
	}))
	return err
}

// removeSocket removes a socket on which nobody listens any more; that of a
// pod's shim may still be in use.
func removeSocket(path string) error {
	if path == "" {
		return nil
	}
	c, err := ttrpc.Dial(path)
	if err == nil {
		return c.Close()
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return nil
	}
	return removeIfThere(path)
}

// bundleDir is -bundle, or the working directory.
func (a *args) bundleDir() (string, error) {
	if a.bundle != "" {
		return filepath.Abs(a.bundle)
	}
	return os.Getwd()
}
