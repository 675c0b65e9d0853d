package rootfs

import (
	"archive/tar"
	"bytes"
	"errors"
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
)

// twoRoots makes a root of a container with a secret of the host beside it.
func twoRoots(t *testing.T) (root *Root, dir, secret string) {
	t.Helper()
	top := t.TempDir()
	secret = filepath.Join(top, "secret")
	dir = filepath.Join(top, "root")
	for _, d := range []string{dir, filepath.Join(dir, "etc"), filepath.Join(dir, "home", "u"), secret} {
		must(t, os.MkdirAll(d, 0o755))
	}
	must(t, os.WriteFile(filepath.Join(secret, "shadow"), []byte("host"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "etc", "passwd"), []byte("container"), 0o644))
	root, err := Directory(dir)
	must(t, err)
	t.Cleanup(func() { must(t, root.Close()) })
	return root, dir, secret
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func tarOf(t *testing.T, hdrs ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hdrs {
		body := ""
		if h.Typeflag == tar.TypeReg {
			body = "from the tar"
			h.Size = int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o755
		}
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		must(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(body))
		must(t, err)
	}
	must(t, w.Close())
	return &b
}

func names(t *testing.T, r io.Reader) []string {
	t.Helper()
	var all []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		all = append(all, h.Name)
	}
}

func TestNothingLeadsOutOfARoot(t *testing.T) {
	for _, c := range []struct {
		name string
		link string // what /way is
		path string // that is read
	}{
		{"an absolute link", "SECRET", "/way/shadow"},
		{"a relative link", "../secret", "/way/shadow"},
		{"dots in a link", "../../../../../../../../../../../..SECRET", "/way/shadow"},
		{"dots in the path", "etc", "/../secret/shadow"},
		{"a link to this process's root", "/proc/self/root", "/waySECRET/shadow"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, dir, secret := twoRoots(t)
			must(t, os.Symlink(strings.ReplaceAll(c.link, "SECRET", secret), filepath.Join(dir, "way")))
			path := strings.ReplaceAll(c.path, "SECRET", secret)
			if st, err := root.Stat(path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("stat: %+v, %v", st, err)
			}
			var b bytes.Buffer
			if err := root.Pack(t.Context(), &b, path); err == nil || strings.Contains(b.String(), "host") {
				t.Errorf("pack: %v, %q", err, b.String())
			}
		})
	}
}

func TestATarLandsInTheRootWhateverItSays(t *testing.T) {
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	for _, c := range []struct {
		name string
		tar  func(secret string) []tar.Header
		want string // the file in the root that is written; "" for an error
	}{
		{"a plain name", func(string) []tar.Header { return []tar.Header{file("a")} }, "home/u/a"},
		{"directories that are missing", func(string) []tar.Header { return []tar.Header{file("x/y/a")} }, "home/u/x/y/a"},
		{"dots", func(string) []tar.Header { return []tar.Header{file("../../../../a")} }, "home/u/a"},
		{"an absolute name", func(string) []tar.Header { return []tar.Header{file("/a")} }, "home/u/a"},
		{"through an absolute link of the tar", func(s string) []tar.Header { return []tar.Header{link("l", "/etc"), file("l/a")} }, "etc/a"},
		{"through a link to the host", func(s string) []tar.Header { return []tar.Header{link("l", s), file("l/a")} }, ""},
		{"through a link up", func(s string) []tar.Header { return []tar.Header{link("l", "../../../../etc"), file("l/a")} }, "etc/a"},
		{"over a link, which is replaced", func(s string) []tar.Header { return []tar.Header{link("a", s+"/shadow"), file("a")} }, "home/u/a"},
		{"a hard link to the host", func(s string) []tar.Header {
			return []tar.Header{{Name: "a", Typeflag: tar.TypeLink, Linkname: s + "/shadow"}}
		}, ""},
		{"a hard link through a link to the host", func(s string) []tar.Header {
			return []tar.Header{link("l", s), {Name: "a", Typeflag: tar.TypeLink, Linkname: "l/shadow"}}
		}, ""},
		{"an unknown type", func(string) []tar.Header { return []tar.Header{{Name: "a", Typeflag: 'Z'}} }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, dir, secret := twoRoots(t)
			err := root.Unpack(t.Context(), "/home/u", tarOf(t, c.tar(secret)...), UnpackOptions{})
			if c.want == "" && err == nil {
				t.Error("it was taken")
			}
			if c.want != "" {
				must(t, err)
				st, err := os.Lstat(filepath.Join(dir, c.want))
				if err != nil || !st.Mode().IsRegular() {
					t.Errorf("%s: %v, %v", c.want, st, err)
				}
			}
			left, err := os.ReadDir(secret)
			must(t, err)
			data, err := os.ReadFile(filepath.Join(secret, "shadow"))
			if len(left) != 1 || err != nil || string(data) != "host" {
				t.Errorf("the host has %v, %q, %v", left, data, err)
			}
		})
	}
}

func TestALinkThatChangesAllTheTimeLeadsNowhereElse(t *testing.T) {
	root, dir, secret := twoRoots(t)
	way, other := filepath.Join(dir, "way"), filepath.Join(dir, "other")
	must(t, os.Mkdir(way, 0o755))
	must(t, os.Symlink(secret, other))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, way, unix.AT_FDCWD, other, unix.RENAME_EXCHANGE)
			}
		}
	}()
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		// Either of the two answers is right; a write beside the root is not.
		_ = root.Unpack(t.Context(), "/way", tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}), UnpackOptions{})
		var b bytes.Buffer
		_ = root.Pack(t.Context(), &b, "/way/.")
		if strings.Contains(b.String(), "host") {
			t.Fatal("the secret was read")
		}
	}
	close(stop)
	<-stopped
	if left, err := os.ReadDir(secret); err != nil || len(left) != 1 {
		t.Errorf("the host has %v, %v", left, err)
	}
}

func TestADirectoryIsNotReplacedByAFileUnlessToldSo(t *testing.T) {
	for _, c := range []struct {
		name string
		hdr  tar.Header
		keep bool
		ok   bool
	}{
		{"a file over a directory", tar.Header{Name: "u", Typeflag: tar.TypeReg}, false, true},
		{"a file over a directory, kept", tar.Header{Name: "u", Typeflag: tar.TypeReg}, true, false},
		{"a directory over a directory, kept", tar.Header{Name: "u", Typeflag: tar.TypeDir}, true, true},
		{"a directory over a file", tar.Header{Name: "f", Typeflag: tar.TypeDir}, false, true},
		{"a directory over a file, kept", tar.Header{Name: "f", Typeflag: tar.TypeDir}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			root, dir, _ := twoRoots(t)
			must(t, os.WriteFile(filepath.Join(dir, "home", "f"), nil, 0o644))
			must(t, os.WriteFile(filepath.Join(dir, "home", "u", "inside"), nil, 0o644))
			err := root.Unpack(t.Context(), "/home", tarOf(t, c.hdr), UnpackOptions{KeepKind: c.keep})
			if (err == nil) != c.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestWhatIsPackedIsWhatIsUnpacked(t *testing.T) {
	root, dir, _ := twoRoots(t)
	must(t, os.WriteFile(filepath.Join(dir, "home/u/a"), []byte("content"), 0o640))
	must(t, os.Link(filepath.Join(dir, "home/u/a"), filepath.Join(dir, "home/u/b")))
	must(t, os.Symlink("a", filepath.Join(dir, "home/u/l")))
	must(t, unix.Mkfifo(filepath.Join(dir, "home/u/p"), 0o600))
	must(t, os.Chmod(filepath.Join(dir, "home/u"), 0o777|fs.ModeSticky))
	old := time.Unix(1e9, 0)
	must(t, os.Chtimes(filepath.Join(dir, "home/u/a"), old, old))
	must(t, os.Chtimes(filepath.Join(dir, "home/u"), old, old))
	var b bytes.Buffer
	must(t, root.Pack(t.Context(), &b, "/home/u"))
	if got, want := names(t, bytes.NewReader(b.Bytes())), []string{"u/", "u/a", "u/b", "u/l", "u/p"}; !slices.Equal(got, want) {
		t.Errorf("names %v, want %v", got, want)
	}
	must(t, root.Unpack(t.Context(), "/etc", &b, UnpackOptions{}))
	a, err := os.Stat(filepath.Join(dir, "etc/u/a"))
	must(t, err)
	same, err := os.Stat(filepath.Join(dir, "etc/u/b"))
	must(t, err)
	u, err := os.Stat(filepath.Join(dir, "etc/u"))
	must(t, err)
	if !os.SameFile(a, same) || a.Mode() != 0o640 || !a.ModTime().Equal(old) || !u.ModTime().Equal(old) || u.Mode()&fs.ModeSticky == 0 {
		t.Errorf("a %v %v, directory %v %v", a.Mode(), a.ModTime(), u.Mode(), u.ModTime())
	}
	if to, err := os.Readlink(filepath.Join(dir, "etc/u/l")); err != nil || to != "a" {
		t.Errorf("link to %q, %v", to, err)
	}
}

func TestNamesBeginWithWhatWasAskedFor(t *testing.T) {
	root, dir, _ := twoRoots(t)
	must(t, os.Symlink("u", filepath.Join(dir, "home", "me")))
	for path, want := range map[string]string{
		"/home/u": "u/", "/home/u/.": "./", "/home/me": "me", "/home/me/": "me/", "/": "./", "home/u": "u/",
	} {
		var b bytes.Buffer
		must(t, root.Pack(t.Context(), &b, path))
		if got := names(t, &b); len(got) == 0 || got[0] != want {
			t.Errorf("%s: %v, want %s first", path, got, want)
		}
	}
	st, err := root.Stat("/home/me")
	if err != nil || st.Link != "/home/u" || st.Mode&fs.ModeSymlink == 0 || st.Name != "me" {
		t.Errorf("stat of a link: %+v, %v", st, err)
	}
}

func TestAMountedRootShowsItsBindsAndIsGoneAfterwards(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	top := t.TempDir()
	for _, d := range []string{"low", "up", "work", "vol"} {
		must(t, os.MkdirAll(filepath.Join(top, d, "data"), 0o755))
	}
	must(t, os.Symlink("/data", filepath.Join(top, "low", "link")))
	must(t, os.WriteFile(filepath.Join(top, "vol", "here"), nil, 0o644))
	scratch := filepath.Join(top, "scratch")
	root, err := Mounted(scratch, []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{
		"lowerdir=" + filepath.Join(top, "low"), "upperdir=" + filepath.Join(top, "up"), "workdir=" + filepath.Join(top, "work"),
	}}}, []Bind{
		{Source: filepath.Join(top, "vol"), Destination: "/link", ReadOnly: true},
		{Source: filepath.Join(top, "vol"), Destination: "/not/there"},
	})
	must(t, err)
	if _, err := root.Stat("/data/here"); err != nil {
		t.Errorf("the bind through a link is not seen: %v", err)
	}
	err = root.Unpack(t.Context(), "/data", tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}), UnpackOptions{})
	if !errors.Is(err, unix.EROFS) {
		t.Errorf("write to a read-only bind: %v", err)
	}
	must(t, root.Unpack(t.Context(), "/", tarOf(t, tar.Header{Name: "a", Typeflag: tar.TypeReg}), UnpackOptions{}))
	must(t, root.Close())
	if _, err := os.Lstat(filepath.Join(top, "up", "a")); err != nil {
		t.Errorf("what was written is not in the snapshot: %v", err)
	}
	if _, err := os.Lstat(scratch); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("scratch is left: %v", err)
	}
	must(t, Unmount(scratch)) // nothing to do is no error
}
