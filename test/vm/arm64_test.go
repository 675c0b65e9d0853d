package vm

import (
	"flag"
	"testing"
)

var onArm64 = flag.Bool("arm64", false, "run the tests on an emulated arm64, which take some minutes")

func newArm64(t *testing.T) *machine {
	t.Helper()
	if !*onArm64 {
		t.Skip("an emulated arm64 takes minutes: 'make test-vm-arm64' runs this")
	}
	return newMachineOf(t, arm64)
}

func TestTheRuntimeOnArm64(t *testing.T) {
	m := newArm64(t)
	for _, pkg := range []string{"ociruntime/internal/seccomp", "ociruntime/command", "ociruntime"} {
		m.tests(pkg)
	}
	m.boot()
}

func TestTheWholeChainOnArm64(t *testing.T) {
	m := newArm64(t)
	m.programs()
	m.image()
	m.script("whole.sh")
	m.boot()
}
