package volume

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func open(t *testing.T) *Store {
	t.Helper()
	dir := t.TempDir()
	s, err := Open(filepath.Join(dir, "root"), filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAVolumeIsMadeOnceAndGone(t *testing.T) {
	s := open(t)
	v, made, err := s.Create(Volume{Name: "data", Labels: map[string]string{"a": "b"}})
	if err != nil || !made || v.Driver != Local {
		t.Fatalf("create: %+v, %v, %v", v, made, err)
	}
	if err := os.WriteFile(filepath.Join(v.Path, "f"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, made, err := s.Create(Volume{Name: "data"})
	if err != nil || made || again.Labels["a"] != "b" {
		t.Errorf("create again: %+v, %v, %v", again, made, err)
	}
	if n, err := s.Size(t.Context(), "data"); err != nil || n != 5 {
		t.Errorf("size %d, %v", n, err)
	}
	nobody, _, err := s.Create(Volume{})
	if err != nil || !nobody.Anonymous || len(nobody.Name) != 64 {
		t.Errorf("anonymous: %+v, %v", nobody, err)
	}
	all, err := s.List()
	if err != nil || len(all) != 2 {
		t.Errorf("list: %v, %v", all, err)
	}
	if err := s.Remove("data"); err != nil {
		t.Error(err)
	}
	if err := s.Remove("data"); !errdefs.IsNotFound(err) {
		t.Errorf("remove again: %v", err)
	}
	if _, err := os.Lstat(filepath.Dir(v.Path)); !os.IsNotExist(err) {
		t.Errorf("content is left: %v", err)
	}
}

func TestAWrongVolumeIsRefused(t *testing.T) {
	s := open(t)
	for _, c := range []struct {
		name string
		w    Volume
		is   func(error) bool
	}{
		{"a name that leads elsewhere", Volume{Name: "../x"}, errdefs.IsInvalidArgument},
		{"a path", Volume{Name: "/x"}, errdefs.IsInvalidArgument},
		{"one letter", Volume{Name: "x"}, errdefs.IsInvalidArgument},
		{"a hidden name", Volume{Name: ".new-x"}, errdefs.IsInvalidArgument},
		{"a name too long", Volume{Name: strings.Repeat("x", 256)}, errdefs.IsInvalidArgument},
		{"an unknown driver", Volume{Name: "xx", Driver: "nfs"}, errdefs.IsNotFound},
		{"an unknown option", Volume{Name: "xx", Options: map[string]string{"size": "1"}}, errdefs.IsInvalidArgument},
		{"a type without device", Volume{Name: "xx", Options: map[string]string{"type": "tmpfs"}}, errdefs.IsInvalidArgument},
	} {
		if _, made, err := s.Create(c.w); made || !c.is(err) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if all, err := s.List(); err != nil || len(all) != 0 {
		t.Errorf("made all the same: %v, %v", all, err)
	}
	if _, err := s.Volume("../../etc"); !errdefs.IsNotFound(err) {
		t.Errorf("find by path: %v", err)
	}
}

func TestWhatAKillLeftIsSwept(t *testing.T) {
	s := open(t)
	for _, name := range []string{".new-1", ".old-2"} {
		if err := os.MkdirAll(filepath.Join(s.root, name, "sub"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Create(Volume{Name: "kept"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(s.root)
	if err != nil || len(left) != 1 || left[0].Name() != "kept" {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestAVolumeIsVacantUntilItIsFilled(t *testing.T) {
	s := open(t)
	if _, _, err := s.Create(Volume{Name: "data"}); err != nil {
		t.Fatal(err)
	}
	vacant := func(want bool) {
		t.Helper()
		if is, err := s.Vacant("data"); err != nil || is != want {
			t.Errorf("vacant: %v, %v, want %v", is, err, want)
		}
	}
	vacant(true)
	write := func(dir string) error { return os.WriteFile(filepath.Join(dir, "f"), nil, 0o600) }
	full := errors.New("disk full")
	if err := s.Fill("data", func(dir string) error { return errors.Join(write(dir), full) }); !errors.Is(err, full) {
		t.Errorf("fill: %v", err)
	}
	vacant(true)
	if err := s.Fill("data", write); err != nil {
		t.Error(err)
	}
	vacant(false)
}

func TestAVolumeWithADeviceIsMountedWhileItIsUsed(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	s := open(t)
	if _, _, err := s.Create(Volume{Name: "mem", Options: map[string]string{"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}}); err != nil {
		t.Fatal(err)
	}
	mounted := func(want bool) {
		t.Helper()
		if is, err := isMount(s.path("mem")); err != nil || is != want {
			t.Errorf("mounted: %v, %v, want %v", is, err, want)
		}
	}
	for _, id := range []string{"a", "b", "a"} {
		if _, err := s.Mount("mem", id); err != nil {
			t.Fatal(err)
		}
	}
	mounted(true)
	if err := s.Remove("mem"); !errdefs.IsConflict(err) {
		t.Errorf("remove while it is used: %v", err)
	}
	for _, c := range []struct {
		id   string
		left bool
	}{{"a", true}, {"a", true}, {"b", false}, {"nobody", false}} {
		if err := s.Unmount("mem", c.id); err != nil {
			t.Error(err)
		}
		mounted(c.left)
	}
	if err := s.Remove("mem"); err != nil {
		t.Error(err)
	}
}
