package shim

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/shim/internal/logfile"
	"github.com/gantryd/gantry/shim/internal/stream"
)

// The descriptors that a foreign shim gives its logger.
const (
	loggerStdout = 3
	loggerStderr = 4
	loggerReady  = 5
)

// isLogger says whether argv is that of a logger: words of a logger URI.
func isLogger(argv []string) bool {
	words := []string{"driver", "log", "max-size", "max-file", "attach", "stdin", "tty", "fifo-stdin", "fifo-stdout", "fifo-stderr"}
	return len(argv) > 0 && slices.Contains(words, argv[0])
}

// runLogger does for the container of a foreign shim what our own does in its
// process: log and attach.
func runLogger(argv []string) error {
	l, err := api.ParseArgs(argv)
	if err != nil {
		return err
	}
	if l.Fifos == (api.Fifos{}) {
		return logDescriptors(l)
	}
	if os.Getenv(detachedEnv) == "" {
		return detach(argv)
	}
	ready := os.NewFile(loggerReady, "ready")
	if err = logFifos(l, ready); err != nil {
		fmt.Fprint(ready, err) // detach says it, if it still listens
	}
	return err
}

// logDescriptors is the logger of a foreign shim's binary:// URI.
func logDescriptors(l api.Logger) error {
	return logStreams(l, nil,
		stream.Pollable(loggerStdout, "stdout"),
		stream.Pollable(loggerStderr, "stderr"),
		os.NewFile(loggerReady, "ready"), nil)
}

// logFifos is the logger that the engine started.
func logFifos(l api.Logger, ready *os.File) error {
	var in *os.File
	files := [2]*os.File{}
	for i, path := range []string{l.Fifos.Stdout, l.Fifos.Stderr} {
		if path == "" {
			continue
		}
		f, err := openFile(path, unix.O_RDONLY|unix.O_NONBLOCK)
		if err != nil {
			return fmt.Errorf("open fifo: %w", err)
		}
		files[i] = f
	}
	if l.Fifos.Stdin != "" {
		theirs, ours, err := os.Pipe()
		if err != nil {
			return fmt.Errorf("make pipe: %w", err)
		}
		// The shim that reads is not there yet, so we are a reader too.
		to, err := openFile(l.Fifos.Stdin, unix.O_RDWR)
		if err != nil {
			return fmt.Errorf("open fifo: %w", err)
		}
		in = ours
		go feed(to, theirs) // it ends with the program
	}
	removed, err := whenRemoved(files[0])
	if err != nil {
		return err
	}
	return logStreams(l, in, files[0], files[1], ready, removed)
}

// whenRemoved tells when the fifo f has lost its name. Then nobody will open it
// any more, and where nobody has, because the container could not be made, it has
// no end.
func whenRemoved(f *os.File) (<-chan struct{}, error) {
	if f == nil {
		return nil, nil
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	news := os.NewFile(uintptr(fd), "inotify")
	// The number of names is among the attributes (inotify(7), IN_ATTRIB).
	if _, err := unix.InotifyAddWatch(fd, f.Name(), unix.IN_ATTRIB); err != nil {
		return nil, errors.Join(&os.PathError{Op: "watch", Path: f.Name(), Err: err}, news.Close())
	}
	removed := make(chan struct{})
	go func() { // ends with the program
		var b [64]byte
		for {
			if _, err := news.Read(b[:]); err != nil {
				return
			}
			if _, err := os.Lstat(f.Name()); errors.Is(err, fs.ErrNotExist) {
				close(removed)
				return
			}
		}
	}()
	return removed, nil
}

// feed copies stdin into a fifo, and closes it when it was read: what is in a fifo
// that nobody has open is lost.
func feed(to, from *os.File) {
	defer to.Close()
	_, _ = io.Copy(to, from) // there is always a reader: us
	for {
		left, err := unix.IoctlGetInt(int(to.Fd()), unix.TIOCINQ)
		if err != nil || left == 0 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// logStreams logs until stdout and stderr have ended, or until SIGTERM, with which
// containerd's shim ends a logger, or until stop: then what is in the streams is
// still logged. It closes ready when the log is open and the attach socket listens.
func logStreams(l api.Logger, in, stdout, stderr, ready *os.File, stop <-chan struct{}) (err error) {
	s := &streams{}
	if l.Log != "" && l.Driver != api.None {
		if s.log, err = logfile.Open(l); err != nil {
			return err
		}
	}
	if l.Attach != "" {
		if err := s.listen(l, l.TTY, in); err != nil {
			return err
		}
	}
	for st, f := range []*os.File{stdout, stderr} {
		if f != nil {
			s.outputs = append(s.outputs, &output{src: f, fan: s.fanOut(byte(st) + api.Stdout)})
		}
	}
	if err := s.connect(nil, uris{}); err != nil {
		return err
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	if os.Getenv(detachedEnv) != "" {
		// Who started us waits for the end of stderr too; stdin is /dev/null.
		if err := unix.Dup3(0, 2, 0); err != nil {
			return fmt.Errorf("let go of stderr: %w", err)
		}
	}
	ready.Close()
	select {
	case <-s.ended:
	case <-term:
		s.drain()
	case <-stop:
		s.drain()
	}
	err = s.close()
	if s.attach != nil {
		s.attach.Wait()
	}
	return err
}

// detachedEnv marks the logger that detach leaves behind.
const detachedEnv = "GANTRY_LOGGER"

// detach starts the logger in a session of its own and waits until it is ready,
// or says why it cannot be. Nothing of the caller's stays open in it.
func detach(argv []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	ready, theirs, err := stream.OutPipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	if err := closeInherited(); err != nil {
		return err
	}
	p, err := os.StartProcess(self, append([]string{self}, argv...), &os.ProcAttr{
		Env:   append(environ(), detachedEnv+"=1", "GOMAXPROCS=1"),
		Files: []*os.File{null, null, null, null, null, theirs},
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	theirs.Close()
	if err != nil {
		return fmt.Errorf("start logger: %w", err)
	}
	why, err := io.ReadAll(ready)
	if err == nil && len(why) > 0 {
		err = errors.New(string(why))
	}
	if err != nil {
		return fmt.Errorf("start logger: %w", err)
	}
	return p.Release()
}
