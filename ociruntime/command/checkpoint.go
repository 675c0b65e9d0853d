package command

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

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
		return with(func(s *session, c *ociruntime.Container) error {
			o := options(s)
			o.LeaveRunning, o.PreDump, o.ParentPath = *leave, *preDump, *parent
			if err := c.Checkpoint(context.Background(), o); err != nil || o.LeaveRunning || o.PreDump {
				return err
			}
			return c.Delete(context.Background(), true)
		})
	},
}

var restoreCommand = command{
	name: "restore", args: "CONTAINER", least: 1, most: 1,
	about: "make a container of the files that checkpoint wrote",
	flags: func(f *flags) action {
		l := launchFlags(f)
		options := criuFlags(f)
		detach := f.flag("detach d", "leave it running")
		noSubreaper := f.flag("no-subreaper", "leave processes that lose their parent to the parent of this one")
		return func(s *session, args []string) (int, error) {
			if !*detach && !*noSubreaper {
				if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
					return 1, fmt.Errorf("become subreaper: %w", err)
				}
			}
			signals := catchSignals()
			c, err := l.restore(s, args[0], options(s))
			if err != nil {
				return 1, err
			}
			if *detach {
				return 0, c.Close()
			}
			status, err := follow(signals, c.Pid, nil)
			if err := errors.Join(err, discard(c)); err != nil {
				return 1, err
			}
			return exitCode(status), nil
		}
	},
}

// criuFlags are those that checkpoint and restore share.
func criuFlags(f *flags) func(*session) ociruntime.CheckpointOptions {
	image := f.text("image-path", "DIR", "where the images are", "checkpoint")
	work := f.text("work-path", "DIR", "where CRIU keeps its logs (default: the image path)", "")
	tcp := f.flag("tcp-established", "keep TCP connections")
	unixSockets := f.flag("ext-unix-sk", "keep unix sockets whose other end is outside")
	shell := f.flag("shell-job", "keep the caller's session and terminal")
	locks := f.flag("file-locks", "keep file locks")
	dedup := f.flag("auto-dedup", "drop what a later image has again")
	cgroups := f.text("manage-cgroups-mode", "MODE", "'soft', 'full', 'strict' or 'ignore'", "")
	empty := f.list("empty-ns", "KIND", "'network': leave out what that namespace holds")
	return func(s *session) ociruntime.CheckpointOptions {
		return ociruntime.CheckpointOptions{
			Criu: s.criu, ImagePath: *image, WorkPath: *work,
			TCPEstablished: *tcp, ExtUnixSockets: *unixSockets, ShellJob: *shell, FileLocks: *locks, AutoDedup: *dedup,
			ManageCgroups: *cgroups, EmptyNetwork: len(*empty) > 0,
		}
	}
}

// restore is create, from images.
func (l launch) restore(s *session, id string, cp ociruntime.CheckpointOptions) (*ociruntime.Container, error) {
	spec, err := l.spec(*l.bundle)
	if err != nil {
		return nil, err
	}
	c, err := ociruntime.Restore(context.Background(), ociruntime.CreateOptions{
		ID: id, Bundle: *l.bundle, Root: s.root, Spec: spec,
		Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr,
		SystemdCgroup: s.systemdCgroup, NoCgroup: s.noCgroup, Rootless: s.rootless, NoPivot: *l.noPivot, Log: s.log,
	}, cp)
	if err != nil {
		return nil, err
	}
	if err := writePid(*l.pidFile, c.Pid); err != nil {
		return nil, errors.Join(err, discard(c))
	}
	return c, nil
}
