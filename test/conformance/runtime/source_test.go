package runtime

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// built is the directory of a suite that was fetched and built once: by make, into
// the cache of this user. Another recipe, the source file of which is named, has
// another directory.
func built(t *testing.T, name, recipe string, make func(dir string) error) string {
	t.Helper()
	key := sha256.New()
	for _, file := range []string{"source_test.go", recipe} {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		key.Write(source)
	}
	name = fmt.Sprintf("%s-%.6x", name, key.Sum(nil))
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "gantry-test", "suites", name)
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	work := dir + ".new"
	if err := os.RemoveAll(work); err != nil {
		t.Fatal(err)
	}
	if err := make(work); err != nil {
		t.Fatalf("make the suite %s: %v", name, err)
	}
	if err := os.Rename(work, dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// module copies the source of a Go module, from the module proxy, to dir.
func module(dir, path, version string) error {
	// Outside of our own module, which is not to know this one.
	cmd := exec.Command("go", "mod", "download", "-json", path+"@"+version)
	cmd.Dir = os.TempDir()
	out, err := cmd.Output()
	var m struct{ Dir, Error string }
	if jerr := json.Unmarshal(out, &m); jerr != nil || m.Dir == "" {
		return fmt.Errorf("download %s@%s: %w: %s", path, version, err, m.Error)
	}
	if err := run("", "cp", "-r", "--no-preserve=mode", m.Dir, dir); err != nil {
		return err
	}
	return os.RemoveAll(filepath.Join(dir, "vendor")) // of which a module holds the list alone
}

// goBuild builds packages of the module in dir.
func goBuild(dir, cgo string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-mod=mod"}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED="+cgo, "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}

// run runs a command in dir.
func run(dir, name string, args ...string) error {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, strings.TrimSpace(string(out)))
	}
	return nil
}
