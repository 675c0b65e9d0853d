package command

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/atomicfile"
	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/ociruntime"
)

// launch is what create and run have in common: their flags.
type launch struct {
	bundle, config, consoleSocket, pidfdSocket, pidFile *string
	noPivot, noNewKeyring                               *bool
	preserveFDs                                         *uint
}

func launchFlags(f *flags) launch {
	return launch{
		bundle:        f.text("bundle b", "DIR", "the bundle (default: the current directory)", ""),
		config:        f.text("config f", "FILE", "the configuration, relative to the bundle", "config.json"),
		consoleSocket: f.text("console-socket", "PATH", "unix socket that receives the terminal's master", ""),
		pidfdSocket:   f.text("pidfd-socket", "PATH", "unix socket that receives a pidfd of the first process", ""),
		pidFile:       f.text("pid-file", "FILE", "write the process id here", ""),
		noPivot:       f.flag("no-pivot", "chroot in place of pivot_root, for a rootfs on a ramdisk"),
		noNewKeyring:  f.flag("no-new-keyring", "keep the caller's session keyring"),
		preserveFDs:   f.number("preserve-fds", "N", "pass N more descriptors, from 3 up"),
	}
}

// spec reads the configuration of the bundle.
func (l launch) spec(bundle string) (*specs.Spec, error) {
	if filepath.IsAbs(*l.config) {
		return ociruntime.ReadSpecFile(*l.config)
	}
	return ociruntime.ReadSpecFile(filepath.Join(bundle, *l.config))
}

// create makes the container. Its terminal is in Console unless a console
// socket took it; detached, there must be a console socket for it. What is
// asked for after the container is made (pid file, sockets) fails with nothing
// left behind.
func (l launch) create(s *session, id string, detached bool) (_ *ociruntime.Container, err error) {
	bundle, err := filepath.Abs(*l.bundle)
	if err != nil {
		return nil, err
	}
	spec, err := l.spec(bundle)
	if err != nil {
		return nil, err
	}
	terminal := spec.Process != nil && spec.Process.Terminal
	if err := checkConsole(terminal, detached, *l.consoleSocket); err != nil {
		return nil, err
	}
	if *l.consoleSocket == "" {
		s.fit(spec.Process)
	}
	extra := s.extraFiles(*l.preserveFDs, spec.Process)
	c, err := ociruntime.Create(context.Background(), ociruntime.CreateOptions{
		ID: id, Bundle: bundle, Root: s.root, Spec: spec,
		Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, ExtraFiles: extra,
		SystemdCgroup: s.systemdCgroup, NoCgroup: s.noCgroup, Rootless: s.rootless, NoPivot: *l.noPivot, NoNewKeyring: *l.noNewKeyring,
		Notify: os.Getenv(notifyEnv) != "",
		Log:    s.log,
	})
	if err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return discard(c) })
	return c, l.pass(c)
}

// pass gives what is known of a new container to who asked for it.
func (l launch) pass(c *ociruntime.Container) error {
	if *l.consoleSocket != "" && c.Console != nil {
		if err := sendFile(*l.consoleSocket, c.Console); err != nil {
			return fmt.Errorf("pass the terminal on: %w", err)
		}
		c.Console.Close()
		c.Console = nil
	}
	if *l.pidfdSocket != "" {
		if err := sendFile(*l.pidfdSocket, c.PidFD); err != nil {
			return fmt.Errorf("pass the pidfd on: %w", err)
		}
	}
	return writePid(*l.pidFile, c.Pid)
}

// checkConsole says who drives the terminal.
func checkConsole(terminal, detached bool, socket string) error {
	switch {
	case terminal && detached && socket == "":
		return fmt.Errorf("process.terminal is set: --console-socket must say who gets the terminal of a detached process")
	case !terminal && socket != "":
		return fmt.Errorf("--console-socket %s: process.terminal is not set", socket)
	}
	return nil
}

// extraFiles are the caller's descriptors from 3 up that the container gets:
// those of socket activation (sd_listen_fds(3)), then n more.
func (s *session) extraFiles(n uint, p *specs.Process) []*os.File {
	const first = 3
	if listening, err := strconv.ParseUint(os.Getenv("LISTEN_FDS"), 10, 8); err == nil && slices.Contains([]string{"", strconv.Itoa(os.Getpid())}, os.Getenv("LISTEN_PID")) {
		n += uint(listening)
		if p != nil {
			p.Env = append(p.Env, "LISTEN_FDS="+os.Getenv("LISTEN_FDS"), "LISTEN_PID=1")
		}
	}
	var files []*os.File
	var missing []int
	for fd := first; fd < first+int(n); fd++ {
		// What this program opened for itself is closed at execve, the caller's is not.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			missing = append(missing, fd)
			continue
		}
		files = append(files, make([]*os.File, fd-first-len(files))...) // holes, where it has none
		files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("fd %d", fd)))
	}
	if len(missing) > 0 {
		s.log.Warn("--preserve-fds: not all descriptors are open", "missing", missing)
	}
	return files
}

// writePid writes the file that the caller reads when the runtime has ended.
func writePid(file string, pid int) error {
	if file == "" {
		return nil
	}
	if err := atomicfile.Write(file, []byte(strconv.Itoa(pid)), 0o644); err != nil {
		return fmt.Errorf("write pid file: %w", err)
	}
	return nil
}
