package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/ociruntime"
)

// execFailed is the exit code of an exec that did not come to run a program;
// that of a program that ran is its own.
const execFailed = 255

var execCommand = command{
	name: "exec", args: "CONTAINER [COMMAND ARGS…]", least: 1, most: -1, foreign: true,
	about: "run one more process in a running container",
	flags: func(f *flags) action {
		x := execFlags(f)
		return func(s *session, args []string) (int, error) {
			code, err := x.run(s, args[0], args[1:])
			if err != nil {
				return execFailed, fmt.Errorf("exec failed: %w", err)
			}
			return code, nil
		}
	},
}

// execution is what the flags of exec say.
type execution struct {
	process, cwd, user, label, apparmor   *string
	env, gids, caps, cgroups              *[]string
	tty, noNewPrivs, detach, ignorePaused *bool
	consoleSocket, pidfdSocket, pidFile   *string
	preserveFDs                           *uint
}

func execFlags(f *flags) execution {
	return execution{
		process:       f.text("process p", "FILE", "the process as JSON, in place of COMMAND and other flags", ""),
		cwd:           f.text("cwd", "DIR", "working directory in the container", ""),
		env:           f.list("env e", "NAME=VALUE", "set an environment variable; may be repeated"),
		tty:           f.flag("tty t", "give it a terminal"),
		user:          f.text("user u", "UID[:GID]", "whom to run as", ""),
		gids:          f.list("additional-gids g", "GID", "add a group; may be repeated"),
		label:         f.text("process-label", "LABEL", "SELinux label of the process", ""),
		apparmor:      f.text("apparmor", "PROFILE", "AppArmor profile of the process", ""),
		noNewPrivs:    f.flag("no-new-privs", "set the no new privileges bit"),
		caps:          f.list("cap c", "CAP", "add a capability; may be repeated"),
		cgroups:       f.list("cgroup", "[CONTROLLERS:]PATH", "run in this group below the container's; may be repeated, as cpu,cpuacct:PATH, on cgroup v1"),
		ignorePaused:  f.flag("ignore-paused", "a paused container is no error: it runs after resume"),
		detach:        f.flag("detach d", "leave it running"),
		consoleSocket: f.text("console-socket", "PATH", "unix socket that receives the terminal's master", ""),
		pidfdSocket:   f.text("pidfd-socket", "PATH", "unix socket that receives a pidfd of the process", ""),
		pidFile:       f.text("pid-file", "FILE", "write the process id here", ""),
		preserveFDs:   f.number("preserve-fds", "N", "pass N more descriptors, from 3 up"),
	}
}

func (x execution) run(s *session, id string, args []string) (int, error) {
	c, err := s.load(id)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	st, err := c.State()
	if err != nil {
		return 0, err
	}
	if st.Status == ociruntime.Paused && !*x.ignorePaused {
		return 0, errors.New("cannot exec in a paused container (use --ignore-paused to override)")
	}
	p, err := x.spec(c, args)
	if err != nil {
		return 0, err
	}
	if err := checkConsole(p.Terminal, *x.detach, *x.consoleSocket); err != nil {
		return 0, err
	}
	if *x.consoleSocket == "" {
		s.fit(p)
	}
	extra := s.extraFiles(*x.preserveFDs, p)
	var terminal func(*os.File) error
	if *x.consoleSocket == "" {
		terminal = plainOutput
	}
	signals := catchSignals()
	proc, err := c.Exec(context.Background(), p, ociruntime.ExecOptions{
		Stdin: s.stdin, Stdout: s.stdout, Stderr: s.stderr, ExtraFiles: extra,
		Cgroups: subgroups(*x.cgroups), IgnorePaused: *x.ignorePaused, Terminal: terminal, Log: s.log,
	})
	if err != nil {
		return 0, err
	}
	defer proc.PidFD.Close()
	code, err := x.attend(s, proc, signals)
	if err != nil {
		unix.PidfdSendSignal(int(proc.PidFD.Fd()), unix.SIGKILL, nil, 0)
	}
	return code, err
}

// attend hands the process over to who waits for it, or waits itself.
func (x execution) attend(s *session, proc *ociruntime.Process, signals chan os.Signal) (int, error) {
	if *x.consoleSocket != "" {
		if err := sendFile(*x.consoleSocket, proc.Console); err != nil {
			return 0, fmt.Errorf("pass the terminal on: %w", err)
		}
		proc.Console.Close()
		proc.Console = nil
	}
	if *x.pidfdSocket != "" {
		if err := sendFile(*x.pidfdSocket, proc.PidFD); err != nil {
			return 0, fmt.Errorf("pass the pidfd on: %w", err)
		}
	}
	if err := writePid(*x.pidFile, proc.Pid); err != nil {
		return 0, err
	}
	if *x.detach {
		return 0, nil
	}
	terminal, err := s.drive(proc.Console)
	if err != nil {
		return 0, err
	}
	defer terminal.restore()
	status, err := follow(signals, proc.Pid, terminal)
	return exitCode(status), err
}

// spec is the process to run: the one of --process, or the container's own with
// what the flags change.
func (x execution) spec(c *ociruntime.Container, args []string) (*specs.Process, error) {
	if *x.process != "" {
		return readProcess(*x.process)
	}
	if len(args) == 0 {
		return nil, errors.New("a command or --process is missing")
	}
	spec, err := c.Spec()
	if err != nil {
		return nil, err
	}
	p := spec.Process
	p.Args = args
	p.Terminal = *x.tty
	p.Env = append(p.Env, *x.env...)
	p.NoNewPrivileges = p.NoNewPrivileges || *x.noNewPrivs
	override(&p.Cwd, *x.cwd)
	override(&p.SelinuxLabel, *x.label)
	override(&p.ApparmorProfile, *x.apparmor)
	addCapabilities(p, *x.caps)
	if err := setUser(&p.User, *x.user); err != nil {
		return nil, err
	}
	for _, g := range *x.gids {
		gid, err := strconv.ParseUint(g, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("--additional-gids %q: it is no group id", g)
		}
		p.User.AdditionalGids = append(p.User.AdditionalGids, uint32(gid))
	}
	return p, nil
}

// subgroups reads PATH, and CONTROLLERS:PATH.
func subgroups(flags []string) map[string]string {
	groups := map[string]string{}
	for _, f := range flags {
		controllers, path, ok := strings.Cut(f, ":")
		if !ok {
			controllers, path = "", f
		}
		for _, c := range strings.Split(controllers, ",") {
			groups[c] = path
		}
	}
	return groups
}

func readProcess(file string) (*specs.Process, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read --process: %w", err)
	}
	var p specs.Process
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("parse %s: %w", filepath.Clean(file), err)
	}
	return &p, nil
}

func override(field *string, flag string) {
	if flag != "" {
		*field = flag
	}
}

// addCapabilities adds to all sets but the inheritable one, and to the ambient one
// where something is inheritable at all.
func addCapabilities(p *specs.Process, caps []string) {
	if len(caps) == 0 {
		return
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	sets := []*[]string{&p.Capabilities.Bounding, &p.Capabilities.Effective, &p.Capabilities.Permitted}
	if len(p.Capabilities.Inheritable) > 0 {
		sets = append(sets, &p.Capabilities.Ambient)
	}
	for _, set := range sets {
		*set = slices.Concat(*set, caps)
	}
}

// setUser reads UID[:GID].
func setUser(u *specs.User, s string) error {
	if s == "" {
		return nil
	}
	uid, gid, both := strings.Cut(s, ":")
	id, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return fmt.Errorf("--user %q: UID or UID:GID is due, as numbers", s)
	}
	u.UID = uint32(id)
	if both {
		if id, err = strconv.ParseUint(gid, 10, 32); err != nil {
			return fmt.Errorf("--user %q: UID or UID:GID is due, as numbers", s)
		}
		u.GID = uint32(id)
	}
	return nil
}
