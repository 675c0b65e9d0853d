package rig

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests of whole programs stand on ground of their own, so that they see no
// other program's traces and nobody sees theirs:
//
//	outer   makes a cgroup /gantry-test-PID in every hierarchy, starts the inner
//	 │      process in it, waits, and takes away what is left, which is a failure
//	 └ inner  a mount and a cgroup namespace with an empty /run; runs the tests
const insideVar = "GANTRY_TEST_GROUND"

// Main runs the tests of a package that starts programs, and fails when they left
// a mount, cgroup, process, link, port or file behind. More namespaces for all
// tests are asked for as clone(2) names them, such as CLONE_NEWNET.
func Main(m *testing.M, namespaces ...uintptr) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "FAIL: tests that start containers need root")
		os.Exit(1)
	}
	if os.Getenv(insideVar) == "" {
		code, err := outer(namespaces)
		if err != nil {
			fmt.Fprintln(os.Stderr, "FAIL:", err)
			code = max(code, 1)
		}
		os.Exit(code)
	}
	if err := inner(); err != nil {
		fmt.Fprintln(os.Stderr, "FAIL: prepare the ground for the tests:", err)
		os.Exit(1)
	}
	before, err := survey()
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		os.Exit(1)
	}
	code := m.Run()
	if left := before.left(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "FAIL: the tests left behind:\n\t%s\n", strings.Join(left, "\n\t"))
		code = max(code, 1)
	}
	os.Exit(code)
}

// outer runs this program again, on ground of its own, and clears the ground.
func outer(namespaces []uintptr) (code int, err error) {
	runtime.LockOSThread() // Pdeathsig is sent when the thread that started the child ends
	hierarchies, err := cgroupMounts()
	if err != nil {
		return 0, err
	}
	name := fmt.Sprintf("gantry-test-%d", os.Getpid())
	var groups []string
	defer func() {
		for _, g := range groups {
			err = errors.Join(err, clearGroup(g))
		}
	}()
	home := map[string]string{}
	for _, h := range hierarchies {
		if home[h.dir], err = h.current(); err != nil {
			return 0, err
		}
		group := filepath.Join(h.dir, name)
		if err := h.makeGroup(group); err != nil {
			return 0, err
		}
		groups = append(groups, group)
		if err := enter(group); err != nil {
			return 0, err
		}
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVar+"="+name)
	// A cgroup namespace begins at the cgroup of whoever makes it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP, Pdeathsig: unix.SIGKILL}
	for _, flag := range namespaces {
		cmd.SysProcAttr.Unshareflags |= flag
	}
	err = cmd.Start()
	for _, h := range hierarchies {
		err = errors.Join(err, enter(home[h.dir]))
	}
	if err != nil {
		return 0, err
	}
	// The tests are told of the signal and end; the ground is cleared all the same.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT)
	go func() {
		for s := range signals {
			cmd.Process.Signal(s)
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// hierarchy is a mounted cgroup hierarchy.
type hierarchy struct {
	dir     string
	root    string // the cgroup that dir shows
	kind    string // cgroup, cgroup2
	options string // of the mount, such as "cpu" or "name=systemd"
}

func cgroupMounts() ([]hierarchy, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []hierarchy
	for line := range strings.Lines(string(mounts)) {
		before, after, _ := strings.Cut(strings.TrimSpace(line), " - ")
		f, g := strings.Fields(before), strings.Fields(after)
		if len(f) < 5 || len(g) < 3 || g[0] != "cgroup" && g[0] != "cgroup2" {
			continue
		}
		options := strings.TrimPrefix(strings.TrimPrefix(g[2], "rw"), ",")
		all = append(all, hierarchy{f[4], f[3], g[0], options})
	}
	if len(all) == 0 {
		return nil, errors.New("no cgroup hierarchy is mounted")
	}
	return all, nil
}

// current is the directory of the cgroup that this process is in.
func (h hierarchy) current() (string, error) {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && (h.kind == "cgroup2" && f[0] == "0" || h.kind == "cgroup" && f[1] != "" && strings.HasSuffix(","+h.options, ","+f[1])) {
			rel, err := filepath.Rel(h.root, f[2])
			return filepath.Join(h.dir, rel), err
		}
	}
	return "", fmt.Errorf("this process is in no cgroup of %s", h.dir)
}

// makeGroup makes a cgroup in which processes can be.
func (h hierarchy) makeGroup(dir string) error {
	if h.kind == "cgroup2" {
		// What the parent does not hand down, the tests do not have.
		enableControllers(filepath.Dir(dir))
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if h.kind == "cgroup" && h.options == "cpuset" {
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
			data, err := os.ReadFile(filepath.Join(h.dir, file))
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, file), data, 0)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// enableControllers hands the controllers of a v2 cgroup down, each that can be.
func enableControllers(dir string) {
	data, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	for c := range strings.FieldsSeq(string(data)) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0)
	}
}

func enter(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(os.Getpid())), 0)
}

// clearGroup takes a cgroup and those below it away. Processes in it are killed
// and told of: the tests should have ended them.
func clearGroup(dir string) error {
	var left []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var dirs []string
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for i := len(dirs) - 1; i >= 0; i-- { // children first
			for _, pid := range processes(dirs[i]) {
				cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
				if said := fmt.Sprintf("process %d %s", pid, bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})); !strings.Contains(strings.Join(left, "\n"), said) {
					left = append(left, said)
				}
				syscall.Kill(pid, syscall.SIGKILL)
			}
			_ = os.WriteFile(filepath.Join(dirs[i], "freezer.state"), []byte("THAWED"), 0)
			_ = os.Remove(dirs[i])
		}
		if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
			if len(left) > 0 {
				return fmt.Errorf("the tests left behind:\n\t%s", strings.Join(left, "\n\t"))
			}
			return nil
		}
	}
	return fmt.Errorf("cgroup %s cannot be removed", dir)
}

func processes(dir string) []int {
	data, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	var pids []int
	for s := range strings.FieldsSeq(string(data)) {
		if pid, err := strconv.Atoi(s); err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// inner makes the namespaces fit: the cgroup mounts begin at the cgroup of the
// tests, and /run is empty.
func inner() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	hierarchies, err := cgroupMounts()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		if err := unix.Unmount(h.dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", h.dir, err)
		}
		options := h.options
		if strings.Contains(options, "name=") {
			options = "none," + options
		}
		if h.kind == "cgroup2" {
			options = ""
		}
		if err := unix.Mount("cgroup", h.dir, h.kind, 0, options); err != nil {
			return fmt.Errorf("mount %s with options %q: %w", h.dir, options, err)
		}
		if h.kind == "cgroup2" && len(hierarchies) == 1 {
			if err := handDown(h.dir); err != nil {
				return err
			}
		}
	}
	return emptyRun()
}

// emptyRun hides /run, but for the name servers that some systems keep there.
func emptyRun() error {
	const resolv = "/etc/resolv.conf"
	where, err := filepath.EvalSymlinks(resolv)
	if err != nil {
		return err
	}
	servers, err := os.ReadFile(where)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs on /run: %w", err)
	}
	if err := os.Mkdir("/run/lock", 0o777); err != nil {
		return err
	}
	if !strings.HasPrefix(where, "/run/") {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(where), 0o755); err != nil {
		return err
	}
	return os.WriteFile(where, servers, 0o644)
}

// handDown moves the tests out of the root of their v2 hierarchy: a cgroup that
// has processes cannot give controllers to its children.
func handDown(dir string) error {
	leaf := filepath.Join(dir, "tests")
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	if err := enter(leaf); err != nil {
		return err
	}
	for range 100 {
		if len(processes(dir)) == 0 { // the outer process goes home
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	enableControllers(dir)
	return nil
}
