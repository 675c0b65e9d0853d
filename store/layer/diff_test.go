package layer_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/store/layer"
	"github.com/gantryd/gantry/store/snapshot/disk"
)

// shown mounts mounts until the test ends.
func shown(t *testing.T, mounts []mount.Mount) string {
	t.Helper()
	dir := t.TempDir()
	if err := mount.All(mounts, dir); err != nil {
		t.Fatalf("mount (needs CAP_SYS_ADMIN): %v", err)
	}
	t.Cleanup(func() {
		if err := mount.Unmount(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// describe lists everything in a tree that a layer keeps.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, _ fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		name := strings.TrimPrefix(p, dir)
		line := fmt.Sprintf("%s %o %d:%d", name, st.Mode, st.Uid, st.Gid)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %q %d", data, st.Mtim.Sec)
			if st.Nlink > 1 {
				if first, ok := inodes[st.Ino]; ok {
					line += " = " + first
				} else {
					inodes[st.Ino] = name
				}
			}
		case unix.S_IFLNK:
			to, err := os.Readlink(p)
			if err != nil {
				return err
			}
			line += " -> " + to
		case unix.S_IFCHR, unix.S_IFBLK:
			line += fmt.Sprintf(" %x", st.Rdev)
		}
		buf := make([]byte, 64)
		for _, x := range []string{"user.note", "security.capability"} {
			if n, err := unix.Lgetxattr(p, x, buf); err == nil {
				line += fmt.Sprintf(" %s=%q", x, buf[:n])
			}
		}
		all = append(all, line)
		return nil
	})
	do(t, err)
	return all
}

// begin fills the lower layer, and change does to it whatever can be done.
func begin(t *testing.T, dir string) {
	t.Helper()
	p := func(name string) string { return filepath.Join(dir, name) }
	do(t,
		os.MkdirAll(p("keep/deep"), 0o755), os.WriteFile(p("keep/deep/same"), []byte("same"), 0o644),
		os.MkdirAll(p("gone/deep"), 0o755), os.WriteFile(p("gone/deep/f"), []byte("f"), 0o644),
		os.MkdirAll(p("replaced"), 0o755), os.WriteFile(p("replaced/old"), []byte("old"), 0o644),
		os.MkdirAll(p("mode"), 0o755), os.WriteFile(p("mode/untouched"), []byte("u"), 0o644),
		os.WriteFile(p("dirtofile"), []byte("was a file"), 0o644),
		os.MkdirAll(p("filetodir"), 0o755), os.WriteFile(p("filetodir/x"), []byte("x"), 0o644),
		os.WriteFile(p("changed"), []byte("before"), 0o644), os.WriteFile(p("removed"), []byte("r"), 0o644),
		os.WriteFile(p("attributes"), []byte("a"), 0o644), os.Symlink("nowhere", p("link")),
	)
	old := time.Unix(1_000_000_000, 0)
	do(t, os.Chtimes(p("changed"), old, old), os.Chtimes(p("keep/deep/same"), old, old))
}

func change(t *testing.T, dir string) {
	t.Helper()
	p := func(name string) string { return filepath.Join(dir, name) }
	old := time.Unix(1_000_000_000, 0)
	do(t,
		os.RemoveAll(p("gone")), os.RemoveAll(p("removed")),
		os.RemoveAll(p("replaced")), os.Mkdir(p("replaced"), 0o700), os.WriteFile(p("replaced/new"), []byte("new"), 0o600),
		os.Remove(p("dirtofile")), os.Mkdir(p("dirtofile"), 0o755), os.WriteFile(p("dirtofile/in"), []byte("in"), 0o644),
		os.RemoveAll(p("filetodir")), os.WriteFile(p("filetodir"), []byte("now a file"), 0o644),
		// Same size, same whole second: only the content tells.
		os.WriteFile(p("changed"), []byte("after!"), 0o644), os.Chtimes(p("changed"), old, old),
		os.Chmod(p("mode"), 0o711|fs.ModeSticky),
		os.Chown(p("attributes"), 5, 6), os.Chmod(p("attributes"), 0o4711),
		unix.Setxattr(p("attributes"), "user.note", []byte("hi"), 0),
		unix.Setxattr(p("attributes"), "security.capability", []byte("\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
		os.Remove(p("link")), os.Symlink("/etc/elsewhere", p("link")),
		os.WriteFile(p("hard1"), []byte("h"), 0o644), os.Link(p("hard1"), p("keep/hard2")),
		unix.Mknod(p("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), unix.Mkfifo(p("fifo"), 0o600),
		os.WriteFile(p("keep/naïve name"), []byte("unicode"), 0o644),
		os.WriteFile(p("keep/"+strings.Repeat("long", 60)), []byte("long"), 0o644),
	)
	fd := must[int](t)(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))
	defer unix.Close(fd)
	do(t, os.Chdir(dir), unix.Bind(fd, &unix.SockaddrUnix{Name: "socket"}), os.Chdir("/"))
}

func TestADiffAppliedMakesTheSameTree(t *testing.T) {
	for _, tt := range []struct {
		name string
		// as gives the two sides of the diff.
		as func(t *testing.T, lower, upper []mount.Mount) (l, u []mount.Mount)
	}{
		{"from the upper directory", func(_ *testing.T, l, u []mount.Mount) ([]mount.Mount, []mount.Mount) { return l, u }},
		{"by comparing", func(t *testing.T, l, u []mount.Mount) ([]mount.Mount, []mount.Mount) {
			bind := func(m []mount.Mount) []mount.Mount {
				return []mount.Mount{{Type: "bind", Source: shown(t, m), Options: []string{"rbind", "ro"}}}
			}
			return bind(l), bind(u)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := t.Context()
			s := must[*disk.Snapshotter](t)(disk.Overlay(t.TempDir()))
			defer s.Close()
			begin(t, shown(t, must[[]mount.Mount](t)(s.Prepare(ctx, "a", "", nil))))
			do(t, s.Commit(ctx, "base", "a", nil))
			upper := must[[]mount.Mount](t)(s.Prepare(ctx, "b", "base", nil))
			now := shown(t, upper)
			change(t, now)
			lower := must[[]mount.Mount](t)(s.View(ctx, "v", "base", nil))
			l, u := tt.as(t, lower, upper)
			var diff bytes.Buffer
			do(t, layer.Diff(ctx, l, u, &diff))

			names := entries(t, diff.Bytes())
			for _, n := range []string{"keep/deep/same", "keep/deep/", "mode/untouched", "socket"} {
				if slices.Contains(names, n) {
					t.Errorf("%s, which did not change or cannot be in a layer, is in the diff: %q", n, names)
				}
			}
			if !slices.Contains(names, ".wh.gone") || !slices.Contains(names, ".wh.removed") {
				t.Errorf("whiteouts are missing: %q", names)
			}
			again := must[[]mount.Mount](t)(s.Prepare(ctx, "c", "base", nil))
			do(t, layer.Apply(ctx, again, &diff))
			do(t, os.Remove(filepath.Join(now, "socket")))
			want, got := describe(t, now), describe(t, shown(t, again))
			if !slices.Equal(want, got) {
				t.Errorf("tree is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func entries(t *testing.T, data []byte) (names []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(data))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		do(t, err)
		names = append(names, h.Name)
	}
}

func TestADiffOfTheSameIsEmpty(t *testing.T) {
	s := must[*disk.Snapshotter](t)(disk.Overlay(t.TempDir()))
	defer s.Close()
	begin(t, shown(t, must[[]mount.Mount](t)(s.Prepare(t.Context(), "a", "", nil))))
	do(t, s.Commit(t.Context(), "base", "a", nil))
	v := must[[]mount.Mount](t)(s.View(t.Context(), "v", "base", nil))
	w := must[[]mount.Mount](t)(s.Prepare(t.Context(), "w", "base", nil))
	for _, upper := range [][]mount.Mount{v, w} {
		var diff bytes.Buffer
		do(t, layer.Diff(t.Context(), v, upper, &diff))
		if names := entries(t, diff.Bytes()); len(names) != 0 {
			t.Errorf("diff has %q", names)
		}
	}
}

func TestADiffWithoutALowerIsEverything(t *testing.T) {
	s := must[*disk.Snapshotter](t)(disk.Overlay(t.TempDir()))
	defer s.Close()
	mounts := must[[]mount.Mount](t)(s.Prepare(t.Context(), "a", "", nil))
	dir := shown(t, mounts)
	begin(t, dir)
	var diff bytes.Buffer
	do(t, layer.Diff(t.Context(), nil, mounts, &diff))
	again := must[[]mount.Mount](t)(s.Prepare(t.Context(), "b", "", nil))
	do(t, layer.Apply(t.Context(), again, &diff))
	if want, got := describe(t, dir), describe(t, shown(t, again)); !slices.Equal(want, got) {
		t.Errorf("tree is\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A container may go on while it is committed.
func TestADiffOfWhatChangesMeanwhileStaysInside(t *testing.T) {
	s := must[*disk.Snapshotter](t)(disk.Overlay(t.TempDir()))
	defer s.Close()
	do(t, shownOnce(t, must[[]mount.Mount](t)(s.Prepare(t.Context(), "a", "", nil))), s.Commit(t.Context(), "base", "a", nil))
	upper := must[[]mount.Mount](t)(s.Prepare(t.Context(), "b", "base", nil))
	dir := shown(t, upper)
	secret := t.TempDir()
	do(t, os.WriteFile(filepath.Join(secret, "f"), []byte("secret of the host"), 0o600))
	p := func(name string) string { return filepath.Join(dir, name) }
	do(t, os.Mkdir(p("d"), 0o755), os.WriteFile(p("d/f"), []byte("mine"), 0o644), os.Symlink(secret, p("s")))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			// d is the directory, then the link to the secret one.
			_ = unix.Renameat2(unix.AT_FDCWD, p("d"), unix.AT_FDCWD, p("s"), unix.RENAME_EXCHANGE)
			_ = os.WriteFile(p("grows"), bytes.Repeat([]byte("x"), 100_000), 0o644)
			_ = os.Truncate(p("grows"), 5)
		}
	}()
	view := must[[]mount.Mount](t)(s.View(t.Context(), "v", "base", nil))
	for range 300 {
		var diff bytes.Buffer
		if err := layer.Diff(t.Context(), view, upper, &diff); err != nil {
			t.Error(err)
			break
		}
		if bytes.Contains(diff.Bytes(), []byte("secret of the host")) {
			t.Error("the diff has a file of the host")
			break
		}
	}
	cancel()
	<-done
}

func shownOnce(t *testing.T, mounts []mount.Mount) error {
	return os.WriteFile(filepath.Join(shown(t, mounts), "base"), []byte("b"), 0o644)
}
