package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"google.golang.org/protobuf/proto"
)

// transforms may stand before the type of a mount, as in "format/mkdir/overlay", and
// change it in that order before it is mounted (containerd, docs/mounts.md).
var transforms = []string{"format", "mkfs", "mkdir"}

// transformsOf takes the transforms off a type. What is none stays.
func transformsOf(mountType string) (names []string, rest string) {
	for rest = mountType; ; {
		name, after, ok := strings.Cut(rest, "/")
		if !ok || !slices.Contains(transforms, name) {
			return names, rest
		}
		names, rest = append(names, name), after
	}
}

// mounting is an activation that is being made.
type mounting struct {
	root   string               // lifecycle's data: files and directories are made below it
	active []*types.ActiveMount // so far
}

// transform gives mt as its transforms make it.
func (m *mounting) transform(ctx context.Context, mt *types.Mount) (_ *types.Mount, err error) {
	mt = proto.CloneOf(mt)
	names, rest := transformsOf(mt.Type)
	for _, name := range names {
		switch name {
		case "format":
			err = m.format(mt)
		case "mkfs":
			err = m.mkfs(ctx, mt)
		case "mkdir":
			err = m.mkdir(mt)
		}
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", name, mt.Source, err)
		}
	}
	mt.Type = rest
	return mt, nil
}

// format fills in what the mounts before this one came to.
func (m *mounting) format(mt *types.Mount) (err error) {
	fill := func(s *string) {
		if err == nil {
			*s, err = m.filled(*s)
		}
	}
	fill(&mt.Source)
	fill(&mt.Target)
	for i := range mt.Options {
		fill(&mt.Options[i])
	}
	return err
}

var placeholder = regexp.MustCompile(`\{\{\s*(\w+)((?:\s+\d+)*)\s*\}\}`)

// filled replaces {{ mount 0 }} and its like. Templates of Go, which containerd takes,
// can be more; these are the ones that mean something here.
func (m *mounting) filled(s string) (string, error) {
	var failed error
	out := placeholder.ReplaceAllStringFunc(s, func(p string) string {
		f := placeholder.FindStringSubmatch(p)
		value, err := m.value(f[1], strings.Fields(f[2]))
		failed = errors.Join(failed, err)
		return value
	})
	if failed == nil && strings.Contains(out, "{{") {
		failed = fmt.Errorf("want {{ mount N }}, {{ source N }}, {{ target N }} or {{ overlay FROM TO }} in %q", s)
	}
	if failed != nil {
		return "", fmt.Errorf("%w: %w", failed, errdefs.ErrInvalidArgument)
	}
	return out, nil
}

func (m *mounting) value(name string, args []string) (string, error) {
	var of []*types.ActiveMount
	for _, arg := range args {
		i, err := strconv.Atoi(arg)
		if err != nil || i >= len(m.active) {
			return "", fmt.Errorf("{{ %s %s }}: there are %d mounts before", name, arg, len(m.active))
		}
		of = append(of, m.active[i])
	}
	switch {
	case name == "mount" && len(of) == 1:
		return of[0].MountPoint, nil
	case name == "source" && len(of) == 1:
		return of[0].Mount.Source, nil
	case name == "target" && len(of) == 1:
		return of[0].Mount.Target, nil
	case name == "overlay" && len(of) == 2:
		return m.layers(slices.Index(m.active, of[0]), slices.Index(m.active, of[1])), nil
	}
	return "", fmt.Errorf("{{ %s %s }} is not known", name, strings.Join(args, " "))
}

// layers is the mount points from one mount to another, in either direction, as an
// overlay's lowerdir has them.
func (m *mounting) layers(from, to int) string {
	var points []string
	for _, a := range m.active[min(from, to) : max(from, to)+1] {
		points = append(points, a.MountPoint)
	}
	if from > to {
		slices.Reverse(points)
	}
	return strings.Join(points, ":")
}

// settings takes the options that are for a transform off a mount.
func settings(mt *types.Mount, transform string) (mine []string) {
	prefix := "X-containerd." + transform + "."
	var rest []string
	for _, o := range mt.Options {
		if s, ok := strings.CutPrefix(o, prefix); ok {
			mine = append(mine, s)
		} else {
			rest = append(rest, o)
		}
	}
	mt.Options = rest
	return mine
}

// within opens the innermost directory in which something may be made and that is
// above path: one that is mounted, or our data. A link in it cannot lead out.
func (m *mounting) within(path string) (root *os.Root, rest string, err error) {
	best := ""
	for _, dir := range append(m.points(), m.root) {
		if rel, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(rel) && len(dir) > len(best) {
			best, rest = dir, rel
		}
	}
	if best == "" {
		return nil, "", fmt.Errorf("%s is neither in a mount before this one nor below %s: %w", path, m.root, errdefs.ErrNotImplemented)
	}
	root, err = os.OpenRoot(best)
	return root, rest, err
}

func (m *mounting) points() (points []string) {
	for _, a := range m.active {
		points = append(points, a.MountPoint)
	}
	return points
}

// mkdir makes directories: X-containerd.mkdir.path=DIRECTORY[:MODE[:UID:GID]].
func (m *mounting) mkdir(mt *types.Mount) error {
	for _, s := range settings(mt, "mkdir") {
		d, err := parseMkdir(s)
		if err != nil {
			return fmt.Errorf("option X-containerd.mkdir.%s: %w: %w", s, err, errdefs.ErrInvalidArgument)
		}
		if err := m.makeDirectory(d); err != nil {
			return err
		}
	}
	return nil
}

type directory struct {
	path     string
	mode     fs.FileMode
	uid, gid int
}

func parseMkdir(s string) (directory, error) {
	d := directory{mode: 0o700}
	value, ok := strings.CutPrefix(s, "path=")
	f := strings.Split(value, ":")
	if !ok || f[0] == "" || len(f) == 3 || len(f) > 4 {
		return d, errors.New("want path=DIRECTORY[:MODE[:UID:GID]]")
	}
	d.path = f[0]
	if len(f) > 1 {
		mode, err := strconv.ParseUint(f[1], 8, 32)
		if err != nil || mode > 0o777 {
			return d, fmt.Errorf("mode %q: want octal digits, 777 at most", f[1])
		}
		d.mode = fs.FileMode(mode)
	}
	if len(f) == 4 {
		uid, uerr := strconv.ParseUint(f[2], 10, 31)
		gid, gerr := strconv.ParseUint(f[3], 10, 31)
		if err := errors.Join(uerr, gerr); err != nil {
			return d, err
		}
		d.uid, d.gid = int(uid), int(gid)
	}
	return d, nil
}

// makeDirectory makes a directory, with those above it. One that is there already
// stays as it is.
func (m *mounting) makeDirectory(d directory) error {
	root, path, err := m.within(d.path)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	err = root.Mkdir(path, d.mode)
	if errors.Is(err, fs.ErrExist) {
		if st, serr := root.Stat(path); serr != nil || !st.IsDir() {
			return errors.Join(err, serr)
		}
		return nil
	} else if err != nil {
		return err
	}
	return errors.Join(root.Chown(path, d.uid, d.gid), root.Chmod(path, d.mode)) // also past the umask
}

// mkfs makes the file that is the mount's source, with a filesystem in it, unless it
// is there: X-containerd.mkfs.size=100MiB, .fs=ext4, .uuid=UUID.
func (m *mounting) mkfs(ctx context.Context, mt *types.Mount) error {
	f, err := parseMkfs(settings(mt, "mkfs"))
	if err != nil {
		return fmt.Errorf("%w: %w", err, errdefs.ErrInvalidArgument)
	}
	root, path, err := m.within(mt.Source)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Under another name until it is whole: whoever finds the file may use it.
	making := path + ".making"
	file, err := root.OpenFile(making, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	err = file.Truncate(f.size)
	if err == nil {
		err = f.make(ctx, file)
	}
	if err == nil {
		err = root.Rename(making, path)
	}
	if err != nil {
		return errors.Join(err, root.Remove(making))
	}
	return nil
}

// filesystem is one that is to be made.
type filesystem struct {
	size     int64 // bytes
	fs, uuid string
}

func parseMkfs(settings []string) (filesystem, error) {
	f := filesystem{fs: "ext4"}
	for _, s := range settings {
		name, value, _ := strings.Cut(s, "=")
		switch name {
		case "size":
			var err error
			if f.size, err = units.RAMInBytes(value); err != nil {
				return f, fmt.Errorf("option X-containerd.mkfs.size %q: %w", value, err)
			}
		case "fs":
			f.fs = value
		case "uuid":
			f.uuid = value
		default:
			return f, fmt.Errorf("option X-containerd.mkfs.%s is not known; want size, fs, uuid", name)
		}
	}
	if f.size <= 0 {
		return f, errors.New("option X-containerd.mkfs.size=SIZE is missing")
	}
	if !slices.Contains([]string{"ext2", "ext3", "ext4", "xfs"}, f.fs) {
		return f, fmt.Errorf("option X-containerd.mkfs.fs %q: want ext2, ext3, ext4 or xfs", f.fs)
	}
	return f, nil
}

// make runs mkfs(8) on a file.
func (f filesystem) make(ctx context.Context, file *os.File) error {
	args := []string{"-q"}
	switch {
	case f.uuid != "" && f.fs == "xfs":
		args = append(args, "-m", "uuid="+f.uuid)
	case f.uuid != "":
		args = append(args, "-U", f.uuid)
	}
	program := "mkfs." + f.fs
	// By its descriptor, which no link on the way can turn into another file.
	cmd := exec.CommandContext(ctx, program, append(args, "/proc/self/fd/3")...)
	cmd.ExtraFiles = []*os.File{file}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s is not installed: %w", program, errdefs.ErrFailedPrecondition)
	} else if err != nil {
		return fmt.Errorf("%s: %w: %.500s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}
