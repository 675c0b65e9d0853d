package command

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/ociruntime"
)

var checkpointCommand = command{
	name: "checkpoint", args: "CONTAINER", least: 1, most: 1,
	about: "write the processes of a running container to files, by CRIU",
	flags: func(f *flags) action {
		options := criuFlags(f)
		leave := f.flag("leave-running", "let the container go on")
		preDump := f.flag("pre-dump", "write memory only, and let the container go on")
		parent := f.text("parent-path", "DIR", "images of an earlier --pre-dump, relative to the image path", "")
		inFlight := f.flag("tcp-skip-in-flight", "pass over TCP connections that are being made")
		remap := f.flag("link-remap", "give files without a name one again")
		server := f.text("page-server", "ADDRESS:PORT", "send memory there", "")
		status := f.text("status-fd", "FD", "write a zero byte here when the server of --lazy-pages listens", "")
		return with(func(s *session, c *ociruntime.Container) (err error) {
			o, err := options(s)
			if err != nil {
				return err
			}
			o.LeaveRunning, o.PreDump, o.ParentPath, o.PageServer = *leave, *preDump, *parent, *server
			o.TCPSkipInFlight, o.LinkRemap = *inFlight, *remap
			if o.Status, err = statusFile(*status); err != nil {
				return err
			}
			if err := c.Checkpoint(context.Background(), o); err != nil || o.LeaveRunning || o.PreDump {
				return err
			}
			if err := c.Delete(context.Background(), true); !errdefs.IsNotFound(err) {
				return err
			}
			return nil // who ran it attached has seen it end, and was faster
		})
	},
}

// statusFile is the caller's descriptor that --status-fd names.
func statusFile(number string) (*os.File, error) {
	if number == "" || number == "-1" {
		return nil, nil
	}
	var fd int
	if _, err := fmt.Sscanf(number, "%d", &fd); err != nil || fd < 0 {
		return nil, fmt.Errorf("--status-fd %q: the number of a descriptor is due", number)
	}
	mode, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, fmt.Errorf("--status-fd %d: %w", fd, err)
	}
	if mode&unix.O_ACCMODE == unix.O_RDONLY {
		return nil, fmt.Errorf("--status-fd %d: it is not open for writing", fd)
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), "status"), nil
}

var restoreCommand = command{
	name: "restore", args: "CONTAINER", least: 1, most: 1,
	about: "make a container of the files that checkpoint wrote",
	flags: func(f *flags) action {
		l := launchFlags(f)
		options := criuFlags(f)
		detach := f.flag("detach d", "leave it running")
		noSubreaper := f.flag("no-subreaper", "leave processes that lose their parent to the parent of this one")
		profile := f.text("lsm-profile", "TYPE:NAME", "restore under this security profile", "")
		label := f.text("lsm-mount-context", "LABEL", "label what is mounted with this", "")
		return func(s *session, args []string) (int, error) {
			if !*detach && !*noSubreaper {
				if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
					return 1, fmt.Errorf("become subreaper: %w", err)
				}
			}
			o, err := options(s)
			if err != nil {
				return 1, err
			}
			o.LSMProfile, o.LSMMountContext = *profile, *label
			if *detach {
				c, err := l.restore(s, args[0], o, true)
				if err != nil {
					return 1, err
				}
				return 0, c.Close()
			}
			return s.restoreAttached(l, args[0], o)
		}
	},
}

// restoreAttached is runAttached, from images.
func (s *session) restoreAttached(l launch, id string, o ociruntime.CheckpointOptions) (code int, err error) {
	signals := catchSignals()
	c, err := l.restore(s, id, o, false)
	if err != nil {
		return 1, err
	}
	defer func() {
		if e := discard(c); e != nil {
			code, err = 1, errors.Join(err, e)
		}
	}()
	terminal, err := s.drive(c.Console)
	if err != nil {
		return 1, err
	}
	defer terminal.restore()
	status, err := follow(signals, c.Pid, terminal)
	if err != nil {
		return 1, err
	}
	return exitCode(status), nil
}

// criuFlags are those that checkpoint and restore share.
func criuFlags(f *flags) func(*session) (ociruntime.CheckpointOptions, error) {
	image := f.text("image-path", "DIR", "where the images are", "checkpoint")
	work := f.text("work-path", "DIR", "where CRIU keeps its logs (default: the image path)", "")
	tcp := f.flag("tcp-established", "keep TCP connections")
	unixSockets := f.flag("ext-unix-sk", "keep unix sockets whose other end is outside")
	shell := f.flag("shell-job", "keep the caller's session and terminal")
	locks := f.flag("file-locks", "keep file locks")
	dedup := f.flag("auto-dedup", "drop what a later image has again")
	lazy := f.flag("lazy-pages", "fetch memory when it is wanted, by userfaultfd")
	cgroups := f.text("manage-cgroups-mode", "MODE", "'soft', 'full', 'strict' or 'ignore'", "")
	empty := f.list("empty-ns", "KIND", "'network': leave out what that namespace holds (it always is)")
	return func(s *session) (ociruntime.CheckpointOptions, error) {
		for _, kind := range *empty {
			if kind != "network" {
				return ociruntime.CheckpointOptions{}, fmt.Errorf("--empty-ns: namespace %q is not supported", kind)
			}
		}
		return ociruntime.CheckpointOptions{
			Criu: s.criu, ImagePath: *image, WorkPath: *work,
			TCPEstablished: *tcp, ExtUnixSockets: *unixSockets, ShellJob: *shell, FileLocks: *locks, AutoDedup: *dedup,
			LazyPages: *lazy, ManageCgroups: *cgroups,
		}, nil
	}
}

// restore is create, from images.
func (l launch) restore(s *session, id string, cp ociruntime.CheckpointOptions, detached bool) (_ *ociruntime.Container, err error) {
	spec, err := l.spec(*l.bundle)
	if err != nil {
		return nil, err
	}
	if err := checkConsole(spec.Process != nil && spec.Process.Terminal, detached, *l.consoleSocket); err != nil {
		return nil, err
	}
	c, err := ociruntime.Restore(context.Background(), ociruntime.CreateOptions{
		ID: id, Bundle: *l.bundle, Root: s.root, Spec: spec,
		Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr,
		SystemdCgroup: s.systemdCgroup, NoCgroup: s.noCgroup, Rootless: s.rootless,
		Notify: os.Getenv(notifyEnv) != "", Log: s.log,
	}, cp)
	if err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return discard(c) })
	return c, l.pass(c)
}
