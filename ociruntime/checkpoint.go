package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/ociruntime/internal/criu"
)

// CheckpointOptions say how [Container.Checkpoint] and [Restore] use CRIU. The
// images name what is the host's as runc does, whose checkpoints are restored too.
type CheckpointOptions struct {
	Criu       string // the program; "criu" in PATH when empty
	ImagePath  string // where the images are
	WorkPath   string // where CRIU's logs go; ImagePath when empty
	ParentPath string // images of an earlier PreDump, relative to ImagePath
	PageServer string // ADDRESS:PORT that memory goes to, in place of ImagePath

	LeaveRunning    bool // the container goes on after the checkpoint
	PreDump         bool // write memory only, while the container goes on
	LazyPages       bool // memory is fetched, when it is wanted, from a page server
	TCPEstablished  bool // keep connections
	TCPSkipInFlight bool // pass over connections that are being made
	ExtUnixSockets  bool // keep unix sockets whose other end is outside
	ShellJob        bool // keep the session and terminal of the caller
	FileLocks       bool // keep file locks
	LinkRemap       bool // give files without a name one again
	AutoDedup       bool // drop what a later image has again

	ManageCgroups string // "soft", "full", "strict", "ignore", or CRIU's own way when empty

	// LSMProfile is the security profile to restore under, as TYPE:NAME;
	// LSMMountContext the label of what is mounted.
	LSMProfile, LSMMountContext string

	// Status is told, by a zero byte, that the server of LazyPages listens.
	Status *os.File
}

// Checkpoint writes the processes of the container to files. Without
// LeaveRunning or PreDump they are gone afterwards, and the container is stopped.
func (c *Container) Checkpoint(ctx context.Context, o CheckpointOptions) error {
	unlock, err := c.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.must("checkpoint", Running, Paused); err != nil {
		return err
	}
	spec, err := c.ownSpec()
	if err != nil {
		return err
	}
	if err := o.prepare(); err != nil {
		return err
	}
	kind, verb := criu.Dump, "dump"
	if o.PreDump {
		kind, verb = criu.PreDump, "pre-dump"
	}
	r, err := o.request(verb, spec)
	if err != nil {
		return err
	}
	defer r.close()
	r.Pid, r.Root = int32(c.Pid), c.rec.Rootfs
	if r.FreezeCgroup = c.freezerDir(); o.PreDump {
		r.FreezeCgroup = ""
	}
	if r.External, err = c.externalNamespaces(spec); err != nil {
		return err
	}
	if !o.PreDump {
		if err := c.dumpExternals(&r.Options, spec, o.ImagePath); err != nil {
			return err
		}
	}
	if err := o.able(ctx); err != nil {
		return err
	}
	err = o.call(ctx, func(conn *criu.Conn) error { return conn.Ask(kind, &r.Options, o.heard) })
	return o.explain(verb, err)
}

// heard passes on that the page server listens.
func (o *CheckpointOptions) heard(n criu.Notice) error {
	if n.Step != "status-ready" || o.Status == nil {
		return nil
	}
	if _, err := o.Status.Write([]byte{0}); err != nil {
		return fmt.Errorf("tell that the page server is ready: %w", err)
	}
	return nil
}

// prepare checks the options, makes the directories, and the paths absolute.
func (o *CheckpointOptions) prepare() (err error) {
	if o.Criu == "" {
		o.Criu = "criu"
	}
	if o.Criu, err = exec.LookPath(o.Criu); err != nil {
		return fmt.Errorf("checkpoints need CRIU: %w", err)
	}
	if _, ok := criu.Modes[o.ManageCgroups]; !ok {
		return errs.Because(errdefs.ErrInvalidArgument, "cgroups mode %q: soft, full, strict and ignore are understood", o.ManageCgroups)
	}
	if o.ImagePath, err = filepath.Abs(o.ImagePath); err != nil {
		return err
	}
	if o.WorkPath == "" {
		o.WorkPath = o.ImagePath
	}
	if o.WorkPath, err = filepath.Abs(o.WorkPath); err != nil {
		return err
	}
	if err := o.checkParent(); err != nil {
		return err
	}
	for _, dir := range []string{o.ImagePath, o.WorkPath} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the directory of a checkpoint: %w", err)
		}
	}
	return nil
}

// checkParent says what is wrong with ParentPath, before CRIU silently goes
// without it.
func (o *CheckpointOptions) checkParent() error {
	if o.ParentPath == "" {
		return nil
	}
	if filepath.IsAbs(o.ParentPath) {
		return errs.Because(errdefs.ErrInvalidArgument, "--parent-path %s: it must be relative to the image path", o.ParentPath)
	}
	fi, err := os.Stat(filepath.Join(o.ImagePath, o.ParentPath))
	if err == nil && !fi.IsDir() {
		err = unix.ENOTDIR
	}
	if err != nil {
		return errs.Because(errdefs.ErrInvalidArgument, "--parent-path %s: no images there: %w", o.ParentPath, err)
	}
	return nil
}

// request is what is asked of CRIU, with the directories that it holds open.
type request struct {
	criu.Options
	images, work *os.File
}

func (r *request) close() {
	r.images.Close()
	r.work.Close()
}

// request is what dump and restore have in common. What a network namespace of
// the container's own holds is left out: who sets up networks does so again, at
// the hooks, and the runtime itself has only made lo.
func (o *CheckpointOptions) request(verb string, spec *specs.Spec) (_ *request, err error) {
	r := &request{Options: criu.Options{
		LogFile: verb + ".log", LogLevel: 4, ConfigFile: configFile(spec),
		Parent: o.ParentPath, TrackMem: o.PreDump || o.ParentPath != "",
		LeaveRunning: o.LeaveRunning, ExtUnixSockets: o.ExtUnixSockets, TCPEstablished: o.TCPEstablished,
		TCPSkipInFlight: o.TCPSkipInFlight, ShellJob: o.ShellJob, FileLocks: o.FileLocks, LinkRemap: o.LinkRemap,
		AutoDedup: o.AutoDedup, LazyPages: o.LazyPages, OrphanPtsMaster: true,
		Mode: criu.Modes[o.ManageCgroups], EmptyNs: unix.CLONE_NEWNET,
		LSMProfile: o.LSMProfile, LSMMountLabel: o.LSMMountContext,
	}}
	if o.PageServer != "" {
		if r.PageServer, err = parsePageServer(o.PageServer); err != nil {
			return nil, err
		}
	}
	if r.images, err = os.Open(o.ImagePath); err != nil {
		return nil, fmt.Errorf("open the images of a checkpoint: %w", err)
	}
	if r.work, err = os.Open(o.WorkPath); err != nil {
		r.images.Close()
		return nil, fmt.Errorf("open the directory of CRIU's logs: %w", err)
	}
	r.Images, r.Work = int32(r.images.Fd()), int32(r.work.Fd())
	// An earlier log must not explain what fails now.
	_ = os.Remove(o.log(verb))
	return r, nil
}

// configFile is where the administrator keeps options of CRIU for containers:
// runc's, or what the container's annotation says; that may be nothing.
func configFile(spec *specs.Spec) string {
	if file, ok := spec.Annotations["org.criu.config"]; ok {
		return file
	}
	return "/etc/criu/runc.conf"
}

func parsePageServer(s string) (*criu.PageServer, error) {
	host, text, err := net.SplitHostPort(s)
	port, perr := strconv.ParseUint(text, 10, 16)
	if err != nil || perr != nil || host == "" {
		return nil, errs.Because(errdefs.ErrInvalidArgument, "--page-server %q: ADDRESS:PORT is due", s)
	}
	return &criu.PageServer{Address: host, Port: int32(port)}, nil
}

// able asks CRIU for what not every kernel has.
func (o *CheckpointOptions) able(ctx context.Context) error {
	want := criu.Features{MemTrack: o.PreDump, LazyPages: o.LazyPages}
	if want == (criu.Features{}) {
		return nil
	}
	return o.call(ctx, func(conn *criu.Conn) error {
		have, err := conn.Features(want)
		switch {
		case err != nil:
			return fmt.Errorf("ask criu for its features: %w", err)
		case want.MemTrack && !have.MemTrack:
			return errs.Because(errdefs.ErrNotImplemented, "criu cannot track memory with this kernel, as --pre-dump needs")
		case want.LazyPages && !have.LazyPages:
			return errs.Because(errdefs.ErrNotImplemented, "criu cannot fetch pages with this kernel, as --lazy-pages needs")
		}
		return nil
	})
}

// call runs CRIU for one conversation. What it answers counts, not how it ends:
// after a pre-dump it would wait for another.
func (o *CheckpointOptions) call(ctx context.Context, ask func(*criu.Conn) error) error {
	conn, theirs, err := criu.Pair()
	if err != nil {
		return err
	}
	defer conn.Close()
	cmd := exec.CommandContext(ctx, o.Criu, "swrk", "3")
	cmd.ExtraFiles = []*os.File{theirs}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return fmt.Errorf("run criu: %w", err)
	}
	err = ask(conn)
	conn.Close()
	exit := (*exec.ExitError)(nil)
	if werr := cmd.Wait(); werr != nil && !errors.As(werr, &exit) {
		err = errors.Join(err, werr)
	}
	return err
}

func (o *CheckpointOptions) log(verb string) string { return filepath.Join(o.WorkPath, verb+".log") }

// explain adds CRIU's own words to an error: the last two errors that its log has
// before it says that it failed. Earlier ones need not have mattered.
func (o *CheckpointOptions) explain(verb string, err error) error {
	if err == nil {
		return nil
	}
	log, _ := os.ReadFile(o.log(verb))
	var said []string
	for line := range strings.Lines(string(log)) {
		if _, text, ok := strings.Cut(line, "Error "); ok && !strings.Contains(text, "FAILED") {
			said = append(said, strings.TrimSpace(text))
		}
	}
	if len(said) == 0 {
		return fmt.Errorf("criu %s: %w", verb, err)
	}
	return fmt.Errorf("criu %s: %w: %s (%s)", verb, err, strings.Join(said[max(0, len(said)-2):], "; "), o.log(verb))
}

func (c *Container) freezerDir() string {
	if dir, ok := c.group.Of("freezer"); ok {
		return dir
	}
	dir, _ := c.group.Unified()
	return dir
}
