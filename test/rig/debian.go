package rig

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// imageEnv is the environment that the test images carry.
var imageEnv = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}

// Busybox is the OCI layout of an image of one static busybox and its applets.
func Busybox(t testing.TB) string {
	t.Helper()
	return BusyboxOf(t, runtime.GOARCH, Peer(t, "busybox"))
}

// BusyboxOf is that image for an architecture, with a busybox of the same version.
func BusyboxOf(t testing.TB, arch, program string) string {
	t.Helper()
	return cached(t, "busybox-"+arch, func(dir string) error {
		l, err := NewLayout(dir)
		if err != nil {
			return err
		}
		l.Architecture = arch
		files, err := busyboxFiles(program, Peer(t, "busybox"))
		if err != nil {
			return err
		}
		if err := l.Layer(Tar(files)); err != nil {
			return err
		}
		return l.Finish("busybox:latest", ocispec.ImageConfig{Env: imageEnv, Cmd: []string{"sh"}})
	})
}

// busyboxFiles are a program, and the links that one that runs here tells of.
func busyboxFiles(program, here string) ([]File, error) {
	bin, err := os.ReadFile(program)
	if err != nil {
		return nil, err
	}
	applets, err := exec.Command(here, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list applets of %s: %w", here, err)
	}
	files := []File{
		{Name: "bin/", Mode: 0o755},
		{Name: "bin/busybox", Mode: 0o755, Data: bin},
		{Name: "dev/", Mode: 0o755},
		{Name: "etc/", Mode: 0o755},
		{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n")},
		{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\ndaemon:x:1:\nusers:x:100:nobody\nnogroup:x:65534:\n")},
		{Name: "home/", Mode: 0o755},
		{Name: "proc/", Mode: 0o555},
		{Name: "root/", Mode: 0o700},
		{Name: "sys/", Mode: 0o555},
		{Name: "tmp/", Mode: 0o1777},
		{Name: "usr/", Mode: 0o755},
		{Name: "usr/bin/", Mode: 0o755},
		{Name: "usr/sbin", Sym: "../bin"},
		{Name: "var/", Mode: 0o755},
	}
	for name := range strings.FieldsSeq(string(applets)) {
		if name != "busybox" {
			files = append(files, File{Name: "bin/" + name, Mode: 0o755, Link: "bin/busybox"})
		}
	}
	return files, nil
}

// Debian is the OCI layout of a minimal Debian made by mmdebstrap.
func Debian(t testing.TB) string {
	t.Helper()
	return cached(t, "debian", func(dir string) error {
		l, err := NewLayout(dir)
		if err != nil {
			return err
		}
		if err := l.Layer(mmdebstrap); err != nil {
			return err
		}
		return l.Finish("debian:bookworm", ocispec.ImageConfig{Env: imageEnv, Cmd: []string{"bash"}})
	})
}

// Python is Debian with a second layer: Debian's Python, as its packages unpack.
func Python(t testing.TB) string {
	t.Helper()
	return cached(t, "python", func(dir string) error {
		l, err := NewLayout(dir)
		if err != nil {
			return err
		}
		if err := l.Base(Debian(t)); err != nil {
			return err
		}
		tree, err := os.MkdirTemp("", "gantry-python")
		if err != nil {
			return err
		}
		defer os.RemoveAll(tree)
		if err := unpackDebs(tree, "python3-minimal", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libexpat1", "zlib1g", "libssl3"); err != nil {
			return err
		}
		// Debian's /lib is a link to /usr/lib; a few packages still unpack to /lib.
		if err := run(io.Discard, "cp", "-a", tree+"/lib/.", tree+"/usr/lib/"); err != nil {
			return err
		}
		if err := l.Layer(func(w io.Writer) error { return run(w, "tar", "-C", tree, "--numeric-owner", "-c", "usr") }); err != nil {
			return err
		}
		return l.Finish("python:3.11", ocispec.ImageConfig{Env: imageEnv, Cmd: []string{"python3.11"}, WorkingDir: "/srv"})
	})
}

// Big is an image of about 300 MB unpacked: one large gzip layer of Debian's
// files, text and bytes that do not compress, and two small ones.
func Big(t testing.TB) string {
	t.Helper()
	return cached(t, "big", func(dir string) error {
		l, err := NewLayout(dir)
		if err != nil {
			return err
		}
		if err := l.Base(Debian(t)); err != nil {
			return err
		}
		noise := make([]byte, 96<<20)
		rng := rand.NewChaCha8([32]byte{1})
		rng.Read(noise[:64<<20])
		copy(noise[64<<20:], bytes.Repeat([]byte("the quick brown fox jumps over the lazy dog 0123456789\n"), 1<<19))
		if err := l.Layer(Tar([]File{{Name: "srv/", Mode: 0o755}, {Name: "srv/blob", Mode: 0o644, Data: noise}})); err != nil {
			return err
		}
		if err := l.Layer(Tar([]File{{Name: "etc/", Mode: 0o755}, {Name: "etc/big", Mode: 0o644, Data: []byte("big\n")}})); err != nil {
			return err
		}
		return l.Finish("big:latest", ocispec.ImageConfig{Env: imageEnv, Cmd: []string{"true"}})
	})
}

// mmdebstrap writes the tar of a minimal Debian without documentation and caches.
func mmdebstrap(w io.Writer) error {
	return run(w, "mmdebstrap", "--variant=minbase", "--quiet",
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*",
		"bookworm", "-")
}

// unpackDebs downloads Debian packages by name and unpacks them below dir.
func unpackDebs(dir string, names ...string) error {
	debs, err := os.MkdirTemp("", "gantry-debs")
	if err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	if err := os.Chmod(debs, 0o777); err != nil { // apt downloads as its own user
		return err
	}
	get := exec.Command("apt-get", append([]string{"download", "-q"}, names...)...)
	get.Dir = debs
	if out, err := get.CombinedOutput(); err != nil {
		return fmt.Errorf("download %v: %w: %s", names, err, out)
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := run(io.Discard, "dpkg-deb", "-x", f, dir); err != nil {
			return err
		}
	}
	return nil
}

func run(w io.Writer, name string, args ...string) error {
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = w, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return nil
}

// recipes are the sources that say what is in the images.
//
//go:embed debian.go image.go
var recipes embed.FS

// cacheDir is where the images of these recipes are kept; other recipes have
// another directory.
var cacheDir = sync.OnceValues(func() (string, error) {
	key := sha256.New()
	for _, name := range []string{"debian.go", "image.go"} {
		source, err := recipes.ReadFile(name)
		if err != nil {
			return "", err
		}
		key.Write(source)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		base = os.TempDir()
	}
	dir := filepath.Join(base, "gantry-test", fmt.Sprintf("%.6x", key.Sum(nil)))
	return dir, os.MkdirAll(dir, 0o755)
})

// cached makes the layout name once for all test programs of this user and keeps
// it; the file lock keeps two test programs from making it at the same time.
func cached(t testing.TB, name string, make func(dir string) error) string {
	t.Helper()
	base, err := cacheDir()
	if err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(base, name+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(base, name)
	if _, err := os.Stat(filepath.Join(dir, "oci-layout")); err == nil {
		return dir
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := make(dir); err != nil {
		t.Fatalf("make test image %s: %v", name, err)
	}
	return dir
}
