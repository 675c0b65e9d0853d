package runtime

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

// crunSuite is the source of Debian's crun, which has the tests and the program
// that they run in containers, built.
func crunSuite(t *testing.T) string {
	version := strings.TrimSpace(rig.Must(t, exec.Command("dpkg-query", "-W", "-f", "${source:Version}", "crun")))
	return built(t, "crun-"+version, "crun_test.go", func(dir string) error {
		if err := debianSource(dir, "crun", version); err != nil {
			return err
		}
		// No test may wait for ever.
		if err := run(dir, "sed", "-i", "-e", "s/ret = v()/signal.signal(signal.SIGALRM, timed_out); signal.alarm(30); ret = v(); signal.alarm(0)/",
			"-e", "$a import signal\\ndef timed_out(*_): raise Exception('not within 30 s')", "tests/tests_utils.py"); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "config.h"), []byte("#define HAVE_ERROR_H 1\n#define HAVE_SECCOMP 1\n"), 0o644); err != nil {
			return err
		}
		return run(dir, "gcc", "-static", "-I.", "-o", "tests/init", "tests/init.c", "-lseccomp")
	})
}

// debianSource unpacks the source of a Debian package into dir. The mirrors are
// those of the machine, which may not have them listed for sources.
func debianSource(dir, name, version string) error {
	work, err := os.MkdirTemp("", "gantry-source")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	const from = "/etc/apt"
	script := `cat ` + from + `/sources.list ` + from + `/sources.list.d/*.list 2>/dev/null | grep '^deb ' | sed 's/^deb /deb-src /' >list.list
cat ` + from + `/sources.list.d/*.sources 2>/dev/null | sed 's/^Types: deb$/Types: deb-src/' >list.sources
mkdir -p parts lists/partial && mv list.list list.sources parts/
set -- -q -o Dir::Etc::sourcelist=- -o Dir::Etc::sourceparts="$PWD/parts" -o Dir::State::lists="$PWD/lists" -o APT::Sandbox::User=root
apt-get "$@" update && apt-get "$@" source --download-only ` + name + "=" + version + `
mkdir source && tar -x -C source --strip-components 1 -f ` + name + `_*.orig.tar.*z`
	if err := run(work, "sh", "-e", "-c", script); err != nil {
		return err
	}
	return run(work, "cp", "-r", "source", dir)
}

func TestSuiteOfCrun(t *testing.T) {
	if !*all {
		t.Skip("only with -all: the source of a Debian package takes apt a while")
	}
	suite := crunSuite(t)
	l := readList(t, "crun")
	ran := func(name string) bool { return strings.HasPrefix(name, *only) }
	t.Run("gantry-runtime", func(t *testing.T) {
		l.check(t, false, runPython(t, suite, rig.Program(t, "gantry-runtime")), ran)
	})
	t.Run("control", func(t *testing.T) {
		l.check(t, true, runPython(t, suite, hybridCrun(t)), ran)
	})
}

// hybridCrun is Debian's crun, from which a mount of cgroup v2 beside v1 is hidden:
// it takes no part in that.
func hybridCrun(t *testing.T) string {
	wrapper := filepath.Join(rig.Dir(t), "crun")
	script := "#!/bin/sh\n[ -d /sys/fs/cgroup/unified ] || exec " + rig.Peer(t, "crun") + ` "$@"` + "\n" +
		"exec unshare -m sh -c 'umount /sys/fs/cgroup/unified; exec " + rig.Peer(t, "crun") + ` "$@"' crun "$@"` + "\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return wrapper
}

// runPython runs all files of the suite.
func runPython(t *testing.T, suite, program string) map[string]seen {
	files, err := filepath.Glob(filepath.Join(suite, "tests/test_"+*only+"*.py"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", suite, err)
	}
	got := map[string]seen{}
	for _, f := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), "test_"), ".py")
		start := time.Now()
		for test, s := range readTAP(name+": ", python(t, suite, f, program)) {
			got[test] = s
		}
		t.Logf("%s: %.1f s", name, time.Since(start).Seconds())
	}
	return got
}

// python runs one file of the suite.
func python(t *testing.T, suite, file, program string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := onTerminal(ctx, rig.Peer(t, "python3")+" "+file)
	dir := workDir(t, program)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "OCI_RUNTIME="+program, "INIT="+filepath.Join(suite, "tests/init"), "TMPDIR="+dir, "PYTHONPYCACHEPREFIX="+dir)
	return output(t, cmd)
}
