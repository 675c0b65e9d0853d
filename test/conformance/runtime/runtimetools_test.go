package runtime

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

const runtimeToolsVersion = "v0.9.1-0.20250523060157-0ea5ed0382a2"

// runtimeTools is the source of runtime-tools, with its validation programs in bin/.
func runtimeTools(t *testing.T) string {
	return built(t, "runtime-tools-"+runtimeToolsVersion, "runtimetools_test.go", func(dir string) error {
		if err := module(dir, "github.com/opencontainers/runtime-tools", runtimeToolsVersion); err != nil {
			return err
		}
		return errors.Join(goBuild(dir, "0", "-o", "bin/", "./validation/..."), goBuild(dir, "0", "-o", "runtimetest", "./cmd/runtimetest"))
	})
}

func TestRuntimeTools(t *testing.T) {
	suite := runtimeTools(t)
	l := readList(t, "runtime-tools")
	ran := func(name string) bool { return strings.HasPrefix(name, *only) }
	t.Run("gantry-runtime", func(t *testing.T) {
		l.check(t, false, validate(t, suite, rig.Program(t, "gantry-runtime")), ran)
	})
	if *all {
		t.Run("control", func(t *testing.T) {
			l.check(t, true, validate(t, suite, runc(t)), ran)
		})
	}
}

// validate runs all programs against a runtime.
func validate(t *testing.T, suite, program string) map[string]seen {
	programs, err := filepath.Glob(filepath.Join(suite, "bin", *only+"*"))
	if err != nil || len(programs) == 0 {
		t.Fatalf("no programs in %s/bin: %v", suite, err)
	}
	got := map[string]seen{}
	for _, p := range programs {
		start := time.Now()
		got[filepath.Base(p)] = validation(t, suite, p, program)
		t.Logf("%s: %.1f s", filepath.Base(p), time.Since(start).Seconds())
		for id := range strings.FieldsSeq(rig.Must(t, exec.Command(program, "list", "-q"))) {
			rig.Run(t, exec.Command(program, "delete", "--force", id))
		}
	}
	// Groups above those of its containers the suite leaves.
	for _, group := range []string{"testdir/cgrouptest", "testdir", "cgrouptest"} {
		dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + group)
		for _, d := range append(dirs, "/sys/fs/cgroup/"+group) {
			os.Remove(d) // one that is not empty is told of at the end
		}
	}
	return got
}

var notOK = regexp.MustCompile(`(?m)^\s*not ok`)

// validation runs one program. It passes when it ends well and prints no 'not ok'.
func validation(t *testing.T, suite, validation, program string) seen {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, validation)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	cmd.Dir, cmd.Env = suite, append(os.Environ(), "RUNTIME="+program, "TMPDIR="+workDir(t, program))
	if err := cmd.Run(); err != nil || notOK.Match(said.Bytes()) {
		return seen{fail, said.String()}
	}
	return seen{pass, ""}
}
