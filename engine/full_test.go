package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// asks are what the engine writes in its own directories: how it is asked for, and
// where what was asked for can be looked at.
var asks = []struct {
	name string
	path string
	body any
	made string // 404 where it is not there
}{
	{"a volume", "/volumes/create", map[string]any{"Name": "new"}, "/volumes/new"},
	{"a network", "/networks/create", map[string]any{"Name": "new"}, "/networks/new"},
	{
		"a container with a new volume", "/containers/create?name=new",
		container.CreateRequest{Config: &container.Config{Image: "box", Cmd: []string{"true"}}, HostConfig: &container.HostConfig{Binds: []string{"new:/data"}}},
		"/containers/new/json",
	},
	{"the start of a container", "/containers/made/start", nil, ""},
}

// There is one of each, to be removed.
var olds = []string{"/volumes/old", "/networks/old", "/containers/old"}

func (r *rig) haveOlds() {
	r.call("POST", "/volumes/create", map[string]any{"Name": "old"}, 201, nil)
	r.call("POST", "/networks/create", map[string]any{"Name": "old"}, 201, nil)
	r.create("old", "true", nil)
	r.create("made", "echo of the volume >>/etc/hosts; cat /etc/hosts", nil)
}

// refused proves that everything is refused, in one line that says why, and that
// nothing of it is there.
func (r *rig) refused(why string) {
	r.t.Helper()
	made := r.inspect("made").ID
	for _, a := range asks {
		before := r.parts()
		code, body, err := r.try("POST", a.path, a.body)
		check(r.t, err)
		if text := string(body); code < 400 || !strings.Contains(text, why) || strings.Contains(text, `\n`) {
			r.t.Errorf("%s: %d %s", a.name, code, text)
		}
		if a.made != "" {
			r.call("GET", a.made, nil, 404, nil)
		}
		for _, v := range r.parts() {
			// The container's own files go with it.
			if !slices.Contains(before, v) && !strings.HasPrefix(v, "r/containers/"+made) {
				r.t.Errorf("%s left %s", a.name, v)
			}
		}
	}
}

// parts are the names of whatever is there.
func (r *rig) parts() (all []string) {
	r.t.Helper()
	for _, dir := range []string{"r/volumes", "r/networks", "r/containers", "s/networks/sandboxes", "s/networks/netns"} {
		names, err := os.ReadDir(filepath.Join(r.dir, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			r.t.Error(err)
		}
		for _, n := range names {
			all = append(all, dir+"/"+n.Name())
		}
	}
	links, err := os.ReadDir("/sys/class/net")
	check(r.t, err)
	for _, l := range links {
		if strings.HasPrefix(l.Name(), "br-") {
			all = append(all, "link "+l.Name())
		}
	}
	return append(all, r.snapshots()...)
}

// given proves that everything is given now.
func (r *rig) given() {
	r.t.Helper()
	for _, a := range asks {
		if code, body, err := r.try("POST", a.path, a.body); err != nil || code >= 300 {
			r.t.Errorf("%s: %d %s %v", a.name, code, body, err)
		}
	}
	if code := r.wait("made"); code != 0 {
		r.t.Errorf("the container ended with %d", code)
	}
	out := r.call("GET", "/containers/new/archive?path=/data/file", nil, 200, nil)
	if !strings.Contains(string(out), "of the image") {
		r.t.Error("the volume was not filled from the image")
	}
	for _, path := range []string{"/containers/new", "/containers/made", "/volumes/new", "/networks/new"} {
		r.call("DELETE", path, nil, 204, nil)
	}
}

func TestAFullDiskIsSaidAndCanBeEmptied(t *testing.T) {
	r := newRig(t)
	r.kill()
	// Other than on a tmpfs, a directory needs room too.
	image := filepath.Join(r.dir, "disk")
	check(t, os.WriteFile(image, nil, 0o600))
	check(t, os.Truncate(image, 4<<20))
	must(t, "mke2fs", "-q", "-t", "ext4", "-m", "0", "-O", "^has_journal", image)
	must(t, "mount", "-o", "loop", image, r.cfg.Root)
	t.Cleanup(func() { check(t, unix.Unmount(r.cfg.Root, unix.MNT_DETACH)) })
	r.start()
	r.haveOlds()
	ballast := filepath.Join(r.cfg.Root, "ballast")
	check(t, fill(ballast))
	r.refused("no space left on device")
	for _, path := range olds {
		r.call("DELETE", path, nil, 204, nil)
	}
	check(t, os.Remove(ballast))
	r.given()
}

// fill writes a file until there is no room.
func fill(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 16; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, unix.ENOSPC) {
			size /= 2
		} else if err != nil {
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
	return nil
}

func TestAReadOnlyDiskIsSaid(t *testing.T) {
	r := newRig(t)
	r.haveOlds()
	check(t, unix.Mount(r.cfg.Root, r.cfg.Root, "", unix.MS_BIND, ""))
	// The engine has nothing open in it but what it opens by its path.
	r.kill()
	r.start()
	t.Cleanup(func() { check(t, unix.Unmount(r.cfg.Root, unix.MNT_DETACH)) })
	remount := func(flags uintptr) { check(t, unix.Mount("", r.cfg.Root, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")) }
	remount(unix.MS_RDONLY)
	r.refused("read-only file system")
	for _, path := range []string{"/volumes/old", "/networks/old"} {
		code, body, err := r.try("DELETE", path, nil)
		check(t, err)
		if text := string(body); code < 400 || !strings.Contains(text, "read-only file system") || strings.Contains(text, `\n`) {
			t.Errorf("remove %s: %d %s", path, code, text)
		}
	}
	remount(0)
	for _, path := range olds {
		r.call("DELETE", path, nil, 204, nil)
	}
	r.given()
}
