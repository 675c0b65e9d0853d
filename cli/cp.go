package cli

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/tarcopy"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

type cpOptions struct {
	archive, follow, quiet bool
}

func cpCommand(c *cli) *cobra.Command {
	var o cpOptions
	cmd := &cobra.Command{
		Use:   "cp [OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\ncp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH",
		Short: "Copy files/folders between a container and the local filesystem",
		Long: `Copy files/folders between a container and the local filesystem

Use '-' as the source to read a tar archive from stdin
and extract it to a directory destination in a container.
Use '-' as the destination to stream a tar archive of a
container source to stdout.`,
		Args:              exactArgs(2),
		ValidArgsFunction: files,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case args[0] == "":
				return errors.New("source can not be empty")
			case args[1] == "":
				return errors.New("destination can not be empty")
			}
			return c.cp(cmd.Context(), args[0], args[1], &o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.archive, "archive", "a", false, "Archive mode (copy all uid/gid information)")
	f.BoolVarP(&o.follow, "follow-link", "L", false, "Always follow symbol link in SRC_PATH")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Suppress progress output during copy. Progress\noutput is automatically suppressed if no terminal\nis attached")
	aliases(cmd, "container cp", "cp")
	return cmd
}

func (c *cli) cp(ctx context.Context, src, dst string, o *cpOptions) error {
	from, fromPath := splitContainer(src)
	to, toPath := splitContainer(dst)
	if from == "" && to == "" {
		return errors.New("must specify at least one container source")
	}
	if from != "" && to != "" {
		return errors.New("copying between containers is not supported")
	}
	if _, err := c.engine(); err != nil {
		return err
	}
	if from != "" {
		return c.copyFrom(ctx, from, fromPath, dst, o)
	}
	return c.copyTo(ctx, src, to, toPath, o)
}

// splitContainer tells CONTAINER:PATH from a path of ours: that one is absolute,
// begins with a dot or has no colon.
func splitContainer(s string) (name, file string) {
	if filepath.IsAbs(s) || strings.HasPrefix(s, ".") {
		return "", s
	}
	name, file, ok := strings.Cut(s, ":")
	if !ok {
		return "", s
	}
	return name, file
}

func archivePath(name string) string { return "/containers/" + url.PathEscape(name) + "/archive" }

// copyFrom writes what is at src in a container to dst of ours, or its archive to
// standard output.
func (c *cli) copyFrom(ctx context.Context, name, src, dst string, o *cpOptions) error {
	if o.follow {
		// A path that is not there says so when it is asked for.
		if stat, err := c.statInside(ctx, name, src); err == nil && stat.Mode&fs.ModeSymlink != 0 {
			src = linkTarget(src, stat.LinkTarget)
		}
	}
	resp, err := c.client.Do(ctx, client.Request{Method: http.MethodGet, Path: archivePath(name), Query: url.Values{"path": {src}}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if dst == "-" {
		if _, ok := terminal.File(c.std.Out); ok {
			return errors.New("cowardly refusing to write an archive to a terminal: redirect it")
		}
		_, err := io.Copy(c.std.Out, resp.Body)
		return err
	}
	stat, err := readStat(resp.Header)
	if err != nil {
		return err
	}
	dir, base, err := localTarget(dst, src, stat)
	if err != nil {
		return err
	}
	n := counter{r: resp.Body}
	if err := tarcopy.Unpack(&n, dir, stat.Name, base, o.archive); err != nil {
		return err
	}
	c.copied(o, n.n, dst)
	return nil
}

// linkTarget is where a symbolic link at file points, as a path of the container.
func linkTarget(file, target string) string {
	if path.IsAbs(target) {
		return target
	}
	return path.Join(path.Dir(path.Clean("/"+file)), target)
}

// localTarget is the directory to write into, which must be there, and what the
// copy is called in it: "." where only the contents are wanted.
func localTarget(dst, src string, stat *container.PathStat) (dir, base string, err error) {
	isDir := stat.Mode.IsDir()
	info, err := os.Stat(dst)
	switch {
	case err == nil && info.IsDir():
		if isDir && contentsOnly(src) {
			return dst, ".", nil
		}
		return dst, stat.Name, nil
	case err == nil && isDir:
		return "", "", errors.New("cannot copy directory")
	case err == nil && asksForDir(dst):
		return "", "", errors.New("not a directory")
	case err == nil:
		return filepath.Dir(dst), filepath.Base(dst), nil
	case !errors.Is(err, fs.ErrNotExist):
		return "", "", err
	}
	dir, base = filepath.Split(filepath.Clean(dst))
	if dir == "" {
		dir = "."
	}
	if info, err := os.Stat(dir); err != nil {
		return "", "", fmt.Errorf("invalid output path: directory %q does not exist", filepath.Clean(dir))
	} else if !info.IsDir() {
		return "", "", fmt.Errorf("invalid output path: %q is not a directory", filepath.Clean(dir))
	}
	if !isDir && asksForDir(dst) {
		return "", "", errors.New("no such directory")
	}
	return dir, base, nil
}

// contentsOnly: "DIR/." is what DIR contains, "DIR" and "DIR/" are DIR itself.
func contentsOnly(p string) bool {
	return p == "." || strings.HasSuffix(p, "/.")
}

// asksForDir reports whether p can only be a directory.
func asksForDir(p string) bool { return strings.HasSuffix(p, "/") || contentsOnly(p) }

// copyTo sends what is at src of ours, or the archive on standard input, to dst in
// a container.
func (c *cli) copyTo(ctx context.Context, src, name, dst string, o *cpOptions) error {
	dst, stat, err := c.insideTarget(ctx, name, dst)
	if err != nil {
		return err
	}
	if src == "-" {
		if stat != nil && !stat.Mode.IsDir() {
			return fmt.Errorf("destination \"%s:%s\" must be a directory", name, dst)
		}
		return c.putArchive(ctx, name, dst, c.std.In, o)
	}
	local := src
	if !contentsOnly(src) {
		local = filepath.Clean(src)
	}
	if o.follow {
		if local, err = filepath.EvalSymlinks(local); err != nil {
			return err
		}
	}
	info, err := lstat(local)
	if err != nil {
		return err
	}
	if asksForDir(src) && info.Mode()&fs.ModeSymlink != 0 {
		if info, err = os.Stat(local); err != nil {
			return err
		}
		if local, err = filepath.EvalSymlinks(local); err != nil {
			return err
		}
	}
	dir, base, err := placeInside(dst, stat, src, info.IsDir())
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	packed := make(chan error, 1)
	go func() {
		b := bufio.NewWriterSize(w, 64<<10)
		err := tarcopy.Pack(b, local, base)
		if err == nil {
			err = b.Flush()
		}
		w.CloseWithError(err)
		packed <- err
	}()
	n := counter{r: r}
	err = c.putArchive(ctx, name, dir, &n, o)
	r.CloseWithError(io.ErrClosedPipe)
	if perr := <-packed; perr != nil && !errors.Is(perr, io.ErrClosedPipe) {
		return perr
	}
	if err == nil {
		c.copied(o, n.n, name+":"+dst)
	}
	return err
}

func lstat(file string) (fs.FileInfo, error) {
	info, err := os.Lstat(file)
	if err == nil {
		return info, nil
	}
	abs, aerr := filepath.Abs(file)
	if perr, ok := errors.AsType[*fs.PathError](err); ok && aerr == nil {
		perr.Path = abs
	}
	return nil, err
}

// insideTarget follows a symbolic link at the destination. What is not there has
// no stat: it is to be made.
func (c *cli) insideTarget(ctx context.Context, name, dst string) (string, *container.PathStat, error) {
	stat, err := c.statInside(ctx, name, dst)
	if err == nil && stat.Mode&fs.ModeSymlink != 0 {
		dst = linkTarget(dst, stat.LinkTarget)
		stat, err = c.statInside(ctx, name, dst)
	}
	switch client.StatusOf(err) {
	case 0:
		return dst, stat, err
	case http.StatusNotFound:
		// The container or the path: the container says so when it is written to.
		return dst, nil, nil
	}
	return dst, nil, err
}

// placeInside is the directory to write into and the name in it.
func placeInside(dst string, stat *container.PathStat, src string, isDir bool) (dir, base string, err error) {
	switch {
	case stat != nil && stat.Mode.IsDir():
		if contentsOnly(src) {
			return dst, ".", nil
		}
		abs, err := filepath.Abs(src)
		return dst, filepath.Base(abs), err
	case stat != nil && isDir:
		return "", "", errors.New("cannot copy directory")
	case stat != nil && asksForDir(dst):
		return "", "", errors.New("not a directory")
	case stat == nil && !isDir && asksForDir(dst):
		return "", "", errors.New("no such directory")
	}
	clean := path.Clean("/" + dst)
	return path.Dir(clean), path.Base(clean), nil
}

func (c *cli) putArchive(ctx context.Context, name, dir string, r io.Reader, o *cpOptions) error {
	q := url.Values{"path": {dir}, "noOverwriteDirNonDir": {"true"}}
	if o.archive {
		q.Set("copyUIDGID", "true")
	}
	return c.client.Call(ctx, client.Request{Method: http.MethodPut, Path: archivePath(name), Query: q, Body: r}, nil)
}

func (c *cli) statInside(ctx context.Context, name, file string) (*container.PathStat, error) {
	resp, err := c.client.Do(ctx, client.Request{Method: http.MethodHead, Path: archivePath(name), Query: url.Values{"path": {file}}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return readStat(resp.Header)
}

func readStat(h http.Header) (*container.PathStat, error) {
	raw, err := base64.StdEncoding.DecodeString(h.Get("X-Docker-Container-Path-Stat"))
	if err != nil {
		return nil, fmt.Errorf("read the engine's answer: %w", err)
	}
	var stat container.PathStat
	if err := json.Unmarshal(raw, &stat); err != nil {
		return nil, fmt.Errorf("read the engine's answer: %w", err)
	}
	return &stat, nil
}

// copied says on a terminal how much was copied.
func (c *cli) copied(o *cpOptions, n int64, dst string) {
	if _, ok := terminal.File(c.std.Err); ok && !o.quiet {
		fmt.Fprintf(c.std.Err, "Successfully copied %s to %s\n", units.HumanSize(float64(n)), dst)
	}
}

// counter counts what is read.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}
