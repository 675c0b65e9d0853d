package engine

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/api/stdio"
)

// ourRuntime is the name of the shim that has a stdin beside its logger.
const ourRuntime = "io.containerd.gantry.v2"

// streams are what tasks.Create is given.
type streams struct{ stdin, stdout, stderr string }

// stdio says where the streams of a container go: to the logger (see api/stdio).
func (c *containers) stdio(ctx context.Context, id string, rec record) (streams, error) {
	size, files, err := logLimits(rec.HostConfig.LogConfig)
	if err != nil {
		return streams{}, err
	}
	l := stdio.Logger{
		Binary: c.cfg.ShimBinary, Driver: stdio.None, Log: rec.LogPath,
		MaxSize: size, MaxFile: files, Attach: c.attachPath(id),
		Stdin: rec.Config.OpenStdin, TTY: rec.Config.Tty,
	}
	if l.Log != "" {
		l.Driver = stdio.JSONFile
	}
	if err := os.MkdirAll(filepath.Dir(l.Attach), 0o700); err != nil {
		return streams{}, fmt.Errorf("make directory of attach sockets: %w", err)
	}
	if rec.Config.OpenStdin && rec.Runtime != ourRuntime {
		return c.fifoStdio(ctx, id, l)
	}
	s := streams{stdout: l.URI()}
	if !rec.Config.Tty {
		s.stderr = s.stdout
	}
	return s, nil
}

// attachPath is the attach socket of a container.
func (c *containers) attachPath(id string) string {
	return filepath.Join(c.cfg.State, "a", id)
}

// fifoDir has the fifos of a container under a foreign shim.
func (c *containers) fifoDir(id string) string { return filepath.Join(c.cfg.State, "fifo", id) }

// fifoStdio is for a foreign shim, which has no stdin beside a binary:// logger:
// the streams are fifos, and the engine runs the logger on them.
func (c *containers) fifoStdio(ctx context.Context, id string, l stdio.Logger) (streams, error) {
	dir := c.fifoDir(id)
	if err := os.RemoveAll(dir); err != nil {
		return streams{}, fmt.Errorf("make fifos of %s: %w", id, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return streams{}, fmt.Errorf("make fifos of %s: %w", id, err)
	}
	l.Fifos = stdio.Fifos{Stdin: filepath.Join(dir, "0"), Stdout: filepath.Join(dir, "1")}
	if !l.TTY {
		l.Fifos.Stderr = filepath.Join(dir, "2")
	}
	for _, path := range []string{l.Fifos.Stdin, l.Fifos.Stdout, l.Fifos.Stderr} {
		if path == "" {
			continue
		}
		if err := unix.Mkfifo(path, 0o600); err != nil {
			return streams{}, fmt.Errorf("make fifo %s: %w", path, err)
		}
	}
	if err := c.runLogger(ctx, id, dir, l); err != nil {
		return streams{}, err
	}
	return streams{l.Fifos.Stdin, l.Fifos.Stdout, l.Fifos.Stderr}, nil
}

// runLogger starts the logger, which is ready when the command has ended, and goes
// on in a process of its own. What it says goes to a file: a pipe would be held
// open by that process.
func (c *containers) runLogger(ctx context.Context, id, dir string, l stdio.Logger) error {
	said, err := os.Create(filepath.Join(dir, "said"))
	if err != nil {
		return fmt.Errorf("start logger of %s: %w", id, err)
	}
	defer said.Close()
	defer os.Remove(said.Name())
	cmd := exec.CommandContext(ctx, l.Binary, l.Args()...)
	cmd.Env = append(os.Environ(), "CONTAINER_ID="+id, "CONTAINER_NAMESPACE="+c.cfg.Namespace)
	cmd.Stderr = said
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(said.Name()) // the error without it is better than none
		return fmt.Errorf("start logger of %s: %w: %s", id, err, bytes.TrimSpace(text))
	}
	return nil
}

// logLimits reads --log-driver and --log-opt: json-file (and local, which is kept
// in the same format), or none. Docker has no limit unless told, and fills disks;
// ours is that of api/stdio.
func logLimits(cfg container.LogConfig) (size int64, files int, err error) {
	switch cfg.Type {
	case "json-file", "local", "none", "":
	default:
		return 0, 0, invalid("logger: no log driver named '%s' is registered", cfg.Type)
	}
	size, files = stdio.DefaultMaxSize, stdio.DefaultMaxFile
	for key, value := range cfg.Config {
		switch key {
		case "max-size":
			if value == "-1" {
				size = -1
			} else if size, err = units.FromHumanSize(value); err != nil || size <= 0 {
				return 0, 0, invalid("max-size must be a positive number: %q", value)
			}
		case "max-file":
			if files, err = strconv.Atoi(value); err != nil || files < 1 {
				return 0, 0, invalid("max-file cannot be less than 1: %q", value)
			}
		case "mode", "max-buffer-size", "compress", "labels", "labels-regex", "env", "env-regex", "tag":
		default:
			return 0, 0, invalid("unknown log opt '%s' for %s log driver", key, cfg.Type)
		}
	}
	return size, files, nil
}
