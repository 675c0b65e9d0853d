package engine

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/engine/internal/rootfs"
	"github.com/gantryd/gantry/internal/mount"
)

func TestAnOverlayIsSplitIntoWhatIsWrittenAndWhatIsBelow(t *testing.T) {
	overlay := func(opts ...string) []mount.Mount { return []mount.Mount{{Type: "overlay", Options: opts}} }
	for _, c := range []struct {
		name   string
		mounts []mount.Mount
		upper  string
		below  string // type of the mount below; "" for none
		ok     bool
	}{
		{"two layers", overlay("workdir=/w", "upperdir=/u", "lowerdir=/a:/b"), "/u", "overlay", true},
		{"one layer", overlay("upperdir=/u", "lowerdir=/a"), "/u", "bind", true},
		{"no layer", []mount.Mount{{Type: "bind", Source: "/u"}}, "/u", "", true},
		{"a view", overlay("lowerdir=/a:/b"), "", "", false},
		{"another file system", []mount.Mount{{Type: "ext4", Source: "/dev/sda"}}, "", "", false},
	} {
		upper, below, ok := splitOverlay(c.mounts)
		kind := ""
		if len(below) == 1 {
			kind = below[0].Type
		}
		if ok != c.ok || ok && (upper != c.upper || kind != c.below) {
			t.Errorf("%s: got %q, %v, %v", c.name, upper, below, ok)
		}
	}
}

func TestChangesAreWhatTheUpperDirectorySays(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("whiteouts need root")
	}
	top := t.TempDir()
	low, up := filepath.Join(top, "low"), filepath.Join(top, "up")
	for _, d := range []string{low + "/same", low + "/chmod", low + "/parent", low + "/again/old", up + "/same", up + "/chmod", up + "/parent", up + "/again", up + "/proc", up + "/new"} {
		check(t, os.MkdirAll(d, 0o755))
	}
	for _, f := range []string{low + "/gone", low + "/file", low + "/again/kept", up + "/file", up + "/parent/in", up + "/again/kept", up + "/new/in"} {
		check(t, os.WriteFile(f, nil, 0o644))
	}
	check(t, os.Chmod(up+"/chmod", 0o700))
	check(t, unix.Mknod(up+"/gone", unix.S_IFCHR, 0))
	check(t, unix.Mknod(up+"/never", unix.S_IFCHR, 0)) // hides nothing
	check(t, unix.Setxattr(up+"/again", "trusted.overlay.opaque", []byte("y"), 0))
	root, err := rootfs.Directory(low)
	check(t, err)
	defer root.Close()
	d := &differ{ctx: t.Context(), upper: up, lower: root, mounted: mountedOn()}
	check(t, d.walk("/"))
	want := map[string]container.ChangeType{
		"/gone": container.ChangeDelete, "/file": container.ChangeModify, "/chmod": container.ChangeModify,
		"/parent": container.ChangeModify, "/parent/in": container.ChangeAdd, "/new": container.ChangeAdd, "/new/in": container.ChangeAdd,
		"/again": container.ChangeModify, "/again/kept": container.ChangeModify, "/again/old": container.ChangeDelete,
	}
	for _, c := range d.list {
		kind, ok := want[c.Path]
		if !ok || kind != c.Kind {
			t.Errorf("%s %s is told", c.Kind, c.Path)
		}
		delete(want, c.Path)
	}
	for path, kind := range want {
		t.Errorf("%s %s is not told", kind, path)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
