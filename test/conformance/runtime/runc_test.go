package runtime

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/test/rig"
)

const runcVersion = "v1.6.0-rc.1"

// quick are the files that are run without -all.
var quick = []string{
	"capabilities", "create", "cwd", "delete", "env", "exec", "hooks", "host-mntns", "list", "mask", "mounts", "no_pivot",
	"personality", "ps", "root", "run", "seccomp", "start", "start_detached", "start_hello", "state", "timens", "tty", "umask", "userns",
}

// runcSuite is runc's source with the helpers of its tests, built.
func runcSuite(t *testing.T) string {
	busybox, debian := layer(t, rig.Busybox(t)), layer(t, rig.Debian(t))
	return built(t, "runc-"+runcVersion, "runc_test.go", func(dir string) error {
		if err := module(dir, "github.com/opencontainers/runc", runcVersion); err != nil {
			return err
		}
		// Images of Debian packages in place of those that the suite would download, of
		// which the one of busybox has no /proc and /sys. A kernel without dummy links has
		// veth ones, of which no udev hears.
		script := `gzip -cd ` + busybox + ` | tar --delete proc sys >tests/integration/testdata/busybox.tar
printf '#!/bin/sh\necho BUSYBOX_IMAGE=$(dirname $0)/testdata/busybox.tar\necho DEBIAN_IMAGE=` + debian + `\n' >tests/integration/get-images.sh
find tests -name '*.sh' -exec chmod +x {} + && chmod +x tests/integration/bin/*
sed -i 's/type dummy/type veth/; s/udevadm settle/:/' tests/integration/*.bats`
		if err := run(dir, "sh", "-e", "-c", script); err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(dir, "tests/cmd/_bin"), 0o755); err != nil {
			return err
		}
		return goBuild(dir, "1", "-tags", "seccomp", "-o", "tests/cmd/_bin/", "./tests/cmd/...")
	})
}

// runc is the program of the same source, the control.
func runc(t *testing.T) string {
	dir := built(t, "runc-program-"+runcVersion, "runc_test.go", func(dir string) error {
		if err := module(dir, "github.com/opencontainers/runc", runcVersion); err != nil {
			return err
		}
		return goBuild(dir, "1", "-tags", "seccomp", "-o", "runc", ".")
	})
	return filepath.Join(dir, "runc")
}

// layer is the file of the only layer of an OCI layout.
func layer(t *testing.T, layout string) string {
	t.Helper()
	read := func(file string, v any) {
		data, err := os.ReadFile(filepath.Join(layout, file))
		if err == nil {
			err = json.Unmarshal(data, v)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	blob := func(d digest.Digest) string { return filepath.Join("blobs", d.Algorithm().String(), d.Encoded()) }
	var index ocispec.Index
	read("index.json", &index)
	var m ocispec.Manifest
	read(blob(index.Manifests[0].Digest), &m)
	return filepath.Join(layout, blob(m.Layers[0].Digest))
}

func TestSuiteOfRunc(t *testing.T) {
	suite := runcSuite(t)
	l := readList(t, "runc")
	t.Run("gantry-runtime", func(t *testing.T) {
		l.check(t, false, runBats(t, suite, rig.Program(t, "gantry-runtime"), l), inFiles(batsFiles(t, suite)))
	})
	if *all {
		t.Run("control", func(t *testing.T) {
			l.check(t, true, runBats(t, suite, runc(t), l), inFiles(batsFiles(t, suite)))
		})
	}
}

// inFiles says whether a test is in one of files.
func inFiles(files []string) func(name string) bool {
	return func(name string) bool {
		file, _, _ := strings.Cut(name, ": ")
		return slices.Contains(files, file)
	}
}

// batsFiles are the files to run, without their suffix.
func batsFiles(t *testing.T, suite string) []string {
	paths, err := filepath.Glob(filepath.Join(suite, "tests/integration/*.bats"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, f := range paths {
		f = strings.TrimSuffix(filepath.Base(f), ".bats")
		wanted := *all || slices.Contains(quick, f)
		if *only != "" {
			wanted = strings.HasPrefix(f, *only)
		}
		if wanted && f != "checkpoint" { // CRIU cannot read this kernel
			files = append(files, f)
		}
	}
	return files
}

// runBats runs the files. One with a test that fails and is not expected to is run
// once more: the suite waits for less than a busy machine may take.
func runBats(t *testing.T, suite, program string, l list) map[string]seen {
	got := map[string]seen{}
	for _, f := range batsFiles(t, suite) {
		start := time.Now()
		first := readTAP(f+": ", bats(t, suite, f, program))
		for name, s := range first {
			if s.outcome == fail && l.tests[name].ours == pass && l.tests[name].control == pass {
				t.Logf("%s: failed, and its file is run once more\n%s", name, s.output)
				maps.Copy(first, readTAP(f+": ", bats(t, suite, f, program)))
				break
			}
		}
		maps.Copy(got, first)
		t.Logf("%s: %.1f s", f, time.Since(start).Seconds())
	}
	return got
}

// bats runs one file of the suite.
func bats(t *testing.T, suite, file, program string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	// Links are made in a network of their own.
	cmd := onTerminal(ctx, "unshare -n sh -c 'ip link set lo up && exec bats --tap "+file+".bats'")
	cmd.Dir = filepath.Join(suite, "tests/integration")
	cmd.Env = append(os.Environ(), "RUNC="+program, "TMPDIR="+workDir(t, program))
	return output(t, cmd)
}
