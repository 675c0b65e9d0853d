package mount

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// disk makes a file with an ext4 filesystem.
func disk(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 4<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", file).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4 (Debian: e2fsprogs): %v: %s", err, out)
	}
	return file
}

// device is the loop device that is mounted on dir, and what the kernel says of it.
func device(t *testing.T, dir string) (name string, about func(string) string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[1] == dir {
			name = f[0]
		}
	}
	return name, func(what string) string {
		data, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(name), what))
		if errors.Is(err, os.ErrNotExist) {
			return ""
		} else if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(data))
	}
}

func TestALoopMountHasADeviceForAsLongAsItIsMounted(t *testing.T) {
	file := disk(t)
	for _, tt := range []struct {
		options []string
		ro, dio string
	}{
		{[]string{"loop"}, "0", "0"},
		{[]string{"ro", "loop"}, "1", "0"},
		{[]string{"loop", "direct-io"}, "0", "1"},
	} {
		t.Run(strings.Join(tt.options, ","), func(t *testing.T) {
			dir := t.TempDir()
			m := Mount{Type: "ext4", Source: file, Options: tt.options}
			if err := m.Mount(dir); err != nil {
				t.Fatal(err)
			}
			defer Unmount(dir)
			name, about := device(t, dir)
			if !strings.HasPrefix(name, "/dev/loop") || about("loop/backing_file") != file {
				t.Fatalf("%s is mounted, of %q", name, about("loop/backing_file"))
			}
			if ro, dio := about("ro"), about("loop/dio"); ro != tt.ro || dio != tt.dio {
				t.Errorf("read-only %s, direct %s; want %s, %s", ro, dio, tt.ro, tt.dio)
			}
			if err := os.Mkdir(filepath.Join(dir, fmt.Sprint(len(tt.options), tt.dio)), 0o700); (err != nil) != (tt.ro == "1") {
				t.Errorf("write: %v", err)
			}
			if err := Unmount(dir); err != nil {
				t.Fatal(err)
			}
			// Who looks at all devices, as losetup -a does, may have it open for a moment.
			for end := time.Now().Add(time.Minute); about("loop/backing_file") == file; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%s is left", name)
				}
			}
		})
	}
	err := Mount{Type: "ext4", Source: file + "-not", Options: []string{"loop"}}.Mount(t.TempDir())
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), file+"-not") {
		t.Errorf("no such file: %v", err)
	}
}

func TestAnAttachedDeviceIsKeptUntilItIsDetached(t *testing.T) {
	file, link := disk(t), filepath.Join(t.TempDir(), "link")
	if err := Attach(file, link, "ours", false, false); err != nil {
		t.Fatal(err)
	}
	backing := func() string {
		name, err := os.Readlink(link)
		if err != nil {
			t.Fatal(err)
		}
		data, _ := os.ReadFile(filepath.Join("/sys/block", filepath.Base(name), "loop/backing_file"))
		return strings.TrimSpace(string(data))
	}
	if got := backing(); got != file {
		t.Fatalf("device is of %q", got)
	}
	again := filepath.Join(t.TempDir(), "again")
	name, err := os.Readlink(link)
	if err == nil {
		err = os.Symlink(name, again)
	}
	if err == nil {
		err = Detach(again, "another's")
	}
	if err != nil || backing() != file {
		t.Fatalf("a link of another name took the device away: %v", err)
	}
	if err := Detach(link, "ours"); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); nameOf(t, name) == "ours"; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s is left", name)
		}
	}
	if _, err := os.Lstat(link); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link is left: %v", err)
	}
}

// nameOf is what a loop device is known by, "" if it is nobody's.
func nameOf(t *testing.T, device string) string {
	t.Helper()
	loop, err := os.Open(device)
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close()
	info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
	if err != nil {
		return ""
	}
	return unix.ByteSliceToString(info.File_name[:])
}
