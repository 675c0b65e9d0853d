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
	reaper, err := newReaper(nil)
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
		errs = append(errs, removeAttachSocket(rec.Attach))
	case !errors.Is(err, fs.ErrNotExist): // without one nothing was created
		errs = append(errs, err)
	}
	errs = append(errs, mount.Unmount(filepath.Join(bundle, "rootfs")))
	address, err := os.ReadFile(filepath.Join(bundle, addressFile))
	if err == nil {
		err = removeShimSocket(strings.TrimPrefix(string(address), "unix://"))
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

// removeAttachSocket removes the socket of a container's streams, which is no other's.
func removeAttachSocket(path string) error {
	if path == "" {
		return nil
	}
	return removeIfThere(path)
}

// removeShimSocket removes a socket on which no shim serves any more; that of a
// pod's may still do. One that was just killed can be connected to until the kernel
// has taken it apart, so that it is asked: it answers, or the connection ends.
func removeShimSocket(path string) error {
	const patience = 2 * time.Second // with a pod's shim that is stopped
	for deadline := time.Now().Add(patience); ; {
		c, err := ttrpc.Dial(path)
		if errors.Is(err, unix.ECONNREFUSED) {
			return removeIfThere(path)
		}
		if err != nil {
			return nil
		}
		err = c.Call("containerd.task.v3.Task", "Connect", &taskapi.ProcessRequest{}, &taskapi.ConnectResponse{}, time.Until(deadline))
		if _, serves := errors.AsType[*ttrpc.Status](err); err == nil || serves || errors.Is(err, os.ErrDeadlineExceeded) {
			return c.Close()
		}
		if err := c.Close(); err != nil {
			return err
		}
	}
}

// bundleDir is -bundle, or the working directory.
func (a *args) bundleDir() (string, error) {
	if a.bundle != "" {
		return filepath.Abs(a.bundle)
	}
	return os.Getwd()
}
