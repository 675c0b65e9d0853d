package shim

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/gantryd/gantry/internal/version"
)

// args are the flags that containerd gives every shim (runtime v2 README,
// "Commands").
type args struct {
	Config
	bundle  string
	version bool
	info    bool
	wait    bool
	resume  int    // descriptor of the state of the program before; 0 is none
	trial   bool   // only say whether resume would do
	command string // "start", "delete", or empty for the shim itself
}

func parseArgs(argv []string) (args, error) {
	var a args
	f := flag.NewFlagSet("containerd-shim-gantry-v2", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&a.Namespace, "namespace", "", "containerd namespace")
	f.StringVar(&a.ID, "id", "", "container or pod")
	f.StringVar(&a.bundle, "bundle", "", "bundle directory; the working directory unless given")
	f.StringVar(&a.Address, "address", "", "gRPC socket of containerd")
	f.StringVar(&a.Publisher, "publish-binary", "", "program that publishes events")
	f.StringVar(&a.SocketPath, "socket", "", "path of the shim's own socket, inherited as descriptor 3")
	f.BoolVar(&a.wait, "wait", false, "wait for a bundle, from the daemon on descriptor 3")
	f.IntVar(&a.resume, "resume", 0, "last of all: go on with the state of the program before, on this descriptor")
	f.BoolVar(&a.trial, "trial", false, "with -resume: only say whether it can be read")
	f.BoolVar(&a.Debug, "debug", false, "log more")
	f.BoolVar(&a.version, "v", false, "print the version")
	f.BoolVar(&a.info, "info", false, "print RuntimeInfo")
	if err := f.Parse(argv); err != nil {
		return a, err
	}
	a.command = f.Arg(0)
	a.TTRPCAddress = os.Getenv("TTRPC_ADDRESS")
	if a.Namespace == "" {
		a.Namespace = os.Getenv("NAMESPACE")
	}
	return a, nil
}

// Main is the program: a command of containerd, a logger of a foreign shim, or
// the shim itself. It returns the exit status.
func Main(argv []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if err := run(argv, stdin, stdout); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(stderr, "containerd-shim-gantry-v2:", err)
		}
		return 1
	}
	return 0
}

// resumed is the descriptor of the state of the program before, with which argv ends;
// 0 where it does not. What is before is for who reads command lines: the state has it
// too, and package flag would cost each shim memory.
func resumed(argv []string) (fd int) {
	if n := len(argv); n > 2 && argv[n-2] == "-resume" {
		fd, _ = strconv.Atoi(argv[n-1])
	}
	return fd
}

func run(argv []string, stdin io.Reader, stdout io.Writer) error {
	if isLogger(argv) {
		return runLogger(argv)
	}
	if fd := resumed(argv); fd != 0 {
		return resume(fd)
	}
	a, err := parseArgs(argv)
	if err != nil {
		return err
	}
	switch {
	case a.version:
		_, err := fmt.Fprintf(stdout, "containerd-shim-gantry-v2:\n  Version:  %s\n  Revision: %s\n", version.Version, version.Commit)
		return err
	case a.info:
		return info(stdin, stdout)
	}
	if a.trial {
		return trial(a.resume)
	}
	switch a.command {
	case "start":
		return start(a, stdin, stdout)
	case "delete":
		return deleteDead(a, stdout)
	case "upgrade":
		return upgradeAll(a, stdout)
	case "":
		return serve(a.Config, a.wait)
	}
	return fmt.Errorf("unknown command %q: want start, delete or upgrade", a.command)
}
