package command

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/gantryd/gantry/ociruntime"
)

// program is what the command line calls itself.
const program = "gantry-runtime"

// command is one verb.
type command struct {
	name  string
	args  string // what follows the flags, for the usage
	least int    // number of arguments
	most  int    // -1 is any
	about string
	// foreign says that what follows the first argument is another program's: its
	// flags are not ours.
	foreign bool
	// flags declares the flags and returns what is done when they are parsed.
	flags func(f *flags) action
}

// action carries a command out and returns the exit code of the program.
type action func(s *session, args []string) (code int, err error)

// commands are all verbs, in the order of a container's life.
func commands() []command {
	return []command{
		createCommand, startCommand, runCommand, execCommand, stateCommand, killCommand, deleteCommand,
		listCommand, psCommand, eventsCommand, pauseCommand, resumeCommand, updateCommand,
		checkpointCommand, restoreCommand,
		specCommand, planCommand, featuresCommand, versionCommand,
	}
}

// session is what the flags before the command say.
type session struct {
	root          string
	rootGiven     bool // on the command line: it must be there
	systemdCgroup bool
	noCgroup      bool
	rootless      bool
	criu          string
	log           *slog.Logger
	logFile       bool // the log is a file: errors are told on stderr too

	stdin, stdout, stderr *os.File
}

// Main runs one command and returns the exit code of the program.
func Main(args []string, stdin, stdout, stderr *os.File) int {
	s := &session{stdin: stdin, stdout: stdout, stderr: stderr}
	s.log = slog.New(&plainHandler{w: stderr, level: slog.LevelWarn})
	code, err := s.main(args)
	if err != nil {
		s.log.Error(oneLine(err))
		if s.logFile {
			fmt.Fprintf(stderr, "%s: %s\n", program, oneLine(err))
		}
	}
	return code
}

func (s *session) main(args []string) (int, error) {
	f := newFlags()
	open := s.globals(f)
	help := f.flag("help h", "show this help")
	version := f.flag("version v", "print the version")
	if err := f.parse(args); errors.Is(err, flag.ErrHelp) {
		*help = true
	} else if err != nil {
		return 1, err
	}
	if err := open(); err != nil {
		return 1, err
	}
	args = f.Args()
	switch {
	case *version:
		return printVersion(s, nil)
	case *help || len(args) == 0:
		usage(s.stdout, f)
		return 0, nil
	case args[0] == "help" || args[0] == "h":
		return s.help(f, args[1:])
	}
	c, err := find(args[0])
	if err != nil {
		return 1, err
	}
	return s.run(c, args[1:])
}

// globals declares the flags before the command. What it returns obeys them.
func (s *session) globals(f *flags) (open func() error) {
	root := f.text("root", "DIR", "where the state of containers is kept (a tmpfs serves best)", "")
	debug := f.flag("debug", "log what is done, step by step")
	logPath := f.text("log", "FILE", "write the log here, not to stderr", "")
	format := f.text("log-format", "FORMAT", "'text' or 'json'", "text")
	level := f.text("log-level", "LEVEL", "'debug', 'info', 'warning' or 'error'", "warning")
	systemd := f.flag("systemd-cgroup", "let systemd make the cgroups; cgroupsPath is slice:prefix:name")
	manager := f.text("cgroup-manager", "NAME", "'cgroupfs', 'systemd' or 'disabled', as crun has it", "cgroupfs")
	rootless := f.text("rootless", "WHEN", "'true', 'false' or 'auto'", "auto")
	criu := f.text("criu", "PATH", "the program that checkpoint and restore call", "criu")
	return func() error {
		if err := s.openLog(*logPath, *format, *level, *debug); err != nil {
			return err
		}
		switch *rootless {
		case "true", "false", "auto", "1", "0":
		default:
			return fmt.Errorf("--rootless %q: true, false and auto are understood", *rootless)
		}
		if !slices.Contains([]string{"cgroupfs", "systemd", "disabled"}, *manager) {
			return fmt.Errorf("--cgroup-manager %q: cgroupfs, systemd and disabled are understood", *manager)
		}
		s.rootless = *rootless == "true" || *rootless == "1" || *rootless == "auto" && ociruntime.Restricted()
		s.systemdCgroup, s.noCgroup = *systemd || *manager == "systemd", *manager == "disabled"
		s.criu, s.root, s.rootGiven = *criu, *root, *root != ""
		if s.root == "" {
			s.root = defaultRoot()
		}
		var err error
		s.root, err = filepath.Abs(s.root)
		return err
	}
}

// defaultRoot is in the user's own runtime directory for all but root. Podman of
// an ordinary user calls as the root of a user namespace.
func defaultRoot() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" && ociruntime.Restricted() {
		return filepath.Join(dir, program)
	}
	return ociruntime.DefaultRoot
}

func find(name string) (command, error) {
	for _, c := range commands() {
		if c.name == name {
			return c, nil
		}
	}
	return command{}, fmt.Errorf("unknown command %q ('%s help' lists the commands)", name, program)
}

// run parses the flags of c and carries it out.
func (s *session) run(c command, args []string) (int, error) {
	f := newFlags()
	help := f.flag("help h", "show this help")
	do := c.flags(f)
	args, err := f.parseAll(args, c.foreign)
	if errors.Is(err, flag.ErrHelp) {
		*help = true
	} else if err != nil {
		return 1, fmt.Errorf("%s: %w", c.name, err)
	}
	if *help {
		commandUsage(s.stdout, c, f)
		return 0, nil
	}
	if len(args) < c.least || c.most >= 0 && len(args) > c.most {
		return 1, fmt.Errorf("%s: %d arguments where %s %s %s is due", c.name, len(args), program, c.name, c.args)
	}
	return do(s, args)
}

func (s *session) help(global *flags, args []string) (int, error) {
	if len(args) == 0 {
		usage(s.stdout, global)
		return 0, nil
	}
	c, err := find(args[0])
	if err != nil {
		return 1, err
	}
	f := newFlags()
	c.flags(f)
	commandUsage(s.stdout, c, f)
	return 0, nil
}

func usage(w io.Writer, global *flags) {
	fmt.Fprintf(w, "%s starts containers from OCI bundles.\n\nUsage: %s [flags] COMMAND [flags] [arguments]\n\nCommands:\n", program, program)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-11s %s\n", c.name, c.about)
	}
	fmt.Fprint(w, "\nFlags:\n")
	global.print(w)
}

func commandUsage(w io.Writer, c command, f *flags) {
	fmt.Fprintf(w, "Usage: %s %s [flags] %s\n\n%s\n\nFlags:\n", program, c.name, c.args, c.about)
	f.print(w)
}
