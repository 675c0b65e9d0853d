package shims

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
)

// taskDir is containerd's name for the directories of tasks.
const taskDir = "io.containerd.runtime.v2.task"

// logFifo is where a shim writes what it has to say.
const logFifo = "log"

// bundle is the directory of one task and its twin under root.
type bundle struct {
	ns, id string
	dir    string
	work   string
}

func (t *Table) bundle(ns, id string) bundle {
	return bundle{
		ns: ns, id: id,
		dir:  filepath.Join(t.cfg.State, taskDir, ns, id),
		work: filepath.Join(t.cfg.Root, taskDir, ns, id),
	}
}

// make makes the bundle on disk, or leaves nothing behind.
func (b bundle) make(spec []byte) (err error) {
	if err := os.MkdirAll(filepath.Dir(b.dir), 0o711); err != nil {
		return fmt.Errorf("make bundle of %s: %w", b.id, err)
	}
	if err := os.Mkdir(b.dir, 0o700); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("task %s: %w", b.id, errdefs.ErrAlreadyExists)
	} else if err != nil {
		return fmt.Errorf("make bundle of %s: %w", b.id, err)
	}
	defer errs.Undo(&err, b.remove)
	if err := b.fill(spec); err != nil {
		return fmt.Errorf("make bundle of %s: %w", b.id, err)
	}
	return nil
}

func (b bundle) fill(spec []byte) error {
	if err := b.openToRoot(spec); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(b.dir, "rootfs"), 0o711); err != nil {
		return err
	}
	// A work directory may be left of a task that a reboot ended.
	if err := os.RemoveAll(b.work); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.work), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(b.work, 0o711); err != nil {
		return err
	}
	if err := os.Symlink(b.work, filepath.Join(b.dir, "work")); err != nil {
		return err
	}
	if err := unix.Mkfifo(filepath.Join(b.dir, logFifo), 0o700); err != nil {
		return err
	}
	if spec == nil {
		return nil
	}
	return os.WriteFile(filepath.Join(b.dir, "config.json"), spec, 0o666)
}

// openToRoot lets the container's own root, where that is another user of the
// host, into the bundle.
func (b bundle) openToRoot(spec []byte) error {
	if !bytes.Contains(spec, []byte(`"gidMappings"`)) {
		return nil
	}
	var s struct {
		Linux struct {
			GIDMappings []specs.LinuxIDMapping `json:"gidMappings"`
		} `json:"linux"`
	}
	if err := json.Unmarshal(spec, &s); err != nil {
		return fmt.Errorf("read spec: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	for _, m := range s.Linux.GIDMappings {
		if m.ContainerID == 0 && m.Size > 0 && m.HostID != 0 {
			if err := os.Chown(b.dir, -1, int(m.HostID)); err != nil {
				return err
			}
			return os.Chmod(b.dir, 0o710)
		}
	}
	return nil
}

// remove takes the bundle apart: its mounts, then its files. It never deletes
// below a mount, and may be called again when it failed.
func (b bundle) remove() error {
	rootfs := filepath.Join(b.dir, "rootfs")
	if err := unmountAll(rootfs); err != nil {
		return fmt.Errorf("remove bundle of %s: %w", b.id, err)
	}
	// Not RemoveAll: if something is still mounted here it would eat the image.
	if err := os.Remove(rootfs); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove bundle of %s: %w", b.id, err)
	}
	if err := b.checkUnmounted(); err != nil {
		return fmt.Errorf("remove bundle of %s: %w", b.id, err)
	}
	// A name with a dot is no task's, also if we die half way.
	hidden := filepath.Join(filepath.Dir(b.dir), "."+b.id)
	if err := os.Rename(b.dir, hidden); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove bundle of %s: %w", b.id, err)
	}
	if err := errors.Join(os.RemoveAll(hidden), os.RemoveAll(b.work)); err != nil {
		return fmt.Errorf("remove bundle of %s: %w", b.id, err)
	}
	return nil
}

// deletedFile is in the bundle of a task that was deleted, from before its shim is
// told to exit: that the shim is gone is no death then.
const deletedFile = "deleted"

func (b bundle) markDeleted() error { return b.write(deletedFile, nil) }

func (b bundle) unmarkDeleted() error { return os.Remove(filepath.Join(b.dir, deletedFile)) }

func (b bundle) isDeleted() bool {
	_, err := os.Lstat(filepath.Join(b.dir, deletedFile))
	return err == nil
}

// toldFile is in the bundle of a task whose exit was published, and long enough ago
// to be with all who listen: a successor need not publish it again.
const toldFile = "exit-told"

func (b bundle) isTold() bool {
	_, err := os.Lstat(filepath.Join(b.dir, toldFile))
	return err == nil
}

// endStrays ends the processes whose working directory is the bundle: a shim, and
// what starts one, of which nobody learned the address.
func (b bundle) endStrays() error {
	var pids []int
	// A look that finds none may have come after the end of a process and before the
	// beginning of the one that it started: only the second is believed.
	for none, looks := 0, 0; looks < 200; looks++ {
		if pids = b.inside(); len(pids) > 0 {
			none = 0
		} else if none++; none == 2 {
			return nil
		}
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("end shim of %s: kill %d: %w", b.id, pid, err)
			}
		}
		time.Sleep(5 * time.Millisecond)
	}
	return fmt.Errorf("end shim of %s: processes %v do not end", b.id, pids)
}

func (b bundle) inside() (pids []int) {
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		return nil
	}
	for _, link := range links {
		if dir, err := os.Readlink(link); err != nil || dir != b.dir {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(link))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// unmountAll detaches everything that is mounted on dir, with what is mounted
// below it.
func unmountAll(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
	}
}

// checkUnmounted refuses to go on where a directory that a shim made in the
// bundle is a mount point. Most bundles have none, and cost one readdir.
func (b bundle) checkUnmounted() error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil // gone already
	}
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		if err != nil {
			return err
		}
		if strings.Contains(string(mounts), " "+b.dir+"/") {
			return fmt.Errorf("something is mounted below %s: %w", b.dir, errdefs.ErrFailedPrecondition)
		}
		return nil
	}
	return nil
}

func (b bundle) read(name string) (string, error) {
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	return strings.TrimSpace(string(data)), err
}

func (b bundle) write(name string, data []byte) error {
	return os.WriteFile(filepath.Join(b.dir, name), data, 0o600)
}

// writeAddress writes down where the shim listens: older daemons read "address",
// newer ones "bootstrap.json".
func (b bundle) writeAddress(where *bootstrap.BootstrapResult) error {
	if where.Protocol == "" {
		where.Protocol = "ttrpc"
	}
	data, err := json.Marshal(where)
	if err != nil {
		return err
	}
	return errors.Join(b.write("bootstrap.json", data), b.write("address", []byte(where.Address)))
}
