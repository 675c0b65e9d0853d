package ociruntime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/atomicfile"
	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/specjson"
)

// The files of a container's state, in Root/ID. The status is not among them:
// it is what the process and its fifos say.
//
//	state.json   record
//	config.json  the spec
//	status       fifo that the child reports to, until execve closes it
//	start        fifo that the child waits at; removed when it has gone on
const (
	recordFile = "state.json"
	specFile   = "config.json"
	statusFifo = "status"
	startFifo  = "start"
)

// record is what any process must know to go on with a container.
type record struct {
	State                        // without Status; Pid stays when the process is gone
	StartTime  uint64            `json:"startTime"` // of the process, in ticks since boot: guards against a reused pid
	Cgroups    map[string]string `json:"cgroups,omitempty"`
	Unit       string            `json:"unit,omitempty"` // systemd's, with that cgroup driver
	RDT        rdt               `json:"rdt,omitzero"`
	Covered    uint64            `json:"covered,omitempty"` // mount that the container's lie on, without a mount namespace
	Namespaces uint64            `json:"namespaces"`        // CLONE_NEW* that are not the creator's own
	// NoNewKeyring says that its processes have the session keyring of who starts them.
	NoNewKeyring bool         `json:"noNewKeyring,omitempty"`
	Hooks        *specs.Hooks `json:"hooks,omitempty"`
}

// write keeps r in dir.
func (r *record) write(dir string) error {
	data, err := specjson.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the state of %s: %w", r.ID, err)
	}
	return atomicfile.Write(filepath.Join(dir, recordFile), data, 0o600)
}

// readRecord reads the record in dir, NotFound when there is none.
func readRecord(dir string) (*record, error) {
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, errs.Because(errdefs.ErrNotFound, "container %s does not exist", filepath.Base(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("read the state of a container: %w", err)
	}
	var r record
	if err := specjson.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("read the state of a container: parse %s/%s: %w", dir, recordFile, err)
	}
	return &r, nil
}

// claim makes the state directory of a new container, AlreadyExists when there
// is one.
func claim(root, id string) (dir string, err error) {
	dir = filepath.Join(root, id)
	err = os.Mkdir(dir, 0o711)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(root, 0o711); err == nil {
			err = os.Mkdir(dir, 0o711)
		}
	}
	if errors.Is(err, os.ErrExist) {
		return "", errs.Because(errdefs.ErrAlreadyExists, "container with given ID already exists: %s", id)
	}
	if err != nil {
		return "", fmt.Errorf("make the state directory of %s: %w", id, err)
	}
	return dir, nil
}

// abandon removes the state directory. No mount is ever in it.
func abandon(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the state directory: %w", err)
	}
	return nil
}

// lock keeps other processes from changing the container meanwhile. It fails
// with NotFound when the container was deleted while we waited.
func (c *Container) lock() (unlock func(), err error) {
	fd, err := unix.Open(c.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		for err = unix.EINTR; errors.Is(err, unix.EINTR); {
			err = unix.Flock(fd, unix.LOCK_EX)
		}
		unlock = func() { unix.Close(fd) }
	}
	if err == nil && unix.Access(filepath.Join(c.dir, recordFile), unix.F_OK) == nil {
		return unlock, nil
	}
	if unlock != nil {
		unlock()
	}
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil, errs.Because(errdefs.ErrNotFound, "container %s does not exist", c.ID)
	}
	return nil, fmt.Errorf("lock container %s: %w", c.ID, err)
}

// startTime is when process pid began, in ticks since boot (proc_pid_stat(5)).
func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses, which may hold anything.
	_, rest, ok := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), " ")
	fields := strings.Fields(rest)
	const field = 22 - 3 // the rest begins with field 3
	if !ok || len(fields) <= field {
		return 0, fmt.Errorf("read the start time of %d: %q is short", pid, stat)
	}
	return strconv.ParseUint(fields[field], 10, 64)
}

// openPidfd is the process of r, nil when it is gone.
func (r *record) openPidfd() (*os.File, error) {
	if r.Pid == 0 {
		return nil, nil
	}
	fd, err := unix.PidfdOpen(r.Pid, 0)
	if errIsGone(err) || errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open pidfd of %d: %w", r.Pid, err)
	}
	pidfd := os.NewFile(uintptr(fd), "pidfd")
	// The descriptor is a process now; is it ours?
	if t, err := startTime(r.Pid); err != nil || t != r.StartTime {
		pidfd.Close()
		return nil, nil
	}
	return pidfd, nil
}

// ended says whether the process of pidfd has ended, reaped or not.
func ended(pidfd *os.File) bool {
	if pidfd == nil {
		return true
	}
	fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n > 0
		}
	}
}

// namespaceFlags are the namespaces of the spec.
func namespaceFlags(l *specs.Linux) (flags uint64) {
	for _, n := range l.Namespaces {
		flags |= cloneFlag[n.Type]
	}
	return flags
}

// List loads every container below root.
func List(root string) ([]*Container, error) {
	if root == "" {
		root = DefaultRoot
	}
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return !e.IsDir() || validateID(e.Name()) != nil })
	var list []*Container
	for _, e := range entries {
		c, err := Load(root, e.Name())
		if errdefs.IsNotFound(err) {
			continue // being made, or just deleted
		}
		if err != nil {
			return list, err
		}
		list = append(list, c)
	}
	return list, nil
}
