package ociruntime

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// tellKeyring has this program print its session keyring, for a container has no
// program that does.
const tellKeyring = "GANTRY_TEST_TELLS_KEYRING"

func TestMain(m *testing.M) {
	if os.Getenv(tellKeyring) == "" {
		os.Exit(m.Run())
	}
	id, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_SESSION_KEYRING, false)
	fmt.Println(id, err)
}

// An exec has the keys of its container, not those of whoever calls it.
func TestAnExecHasTheKeyringOfItsContainer(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	s := dockerSpec(t, "sh", "-c", "/tmp/self; /tmp/self; cat")
	s.Linux.Seccomp = nil // it would refuse keyctl
	s.Process.Env = append(s.Process.Env, tellKeyring+"=1")
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp/self", Type: "bind", Source: self, Options: []string{"bind", "ro"}})
	stdin, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	defer end.Close()
	b, err := r.create(s, func(o *CreateOptions) { o.Stdin = stdin })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	said := ""
	for range 2 {
		out, _, err := b.exec(process(s, "/tmp/self"))
		if err != nil {
			t.Fatal(err)
		}
		said += out + "\n"
	}
	end.Close()
	b.wait()
	if err := b.Delete(context.Background(), false); err != nil {
		t.Error(err)
	}
	if b.output() != said {
		t.Errorf("two execs have the keyrings %q, their container %q", said, b.output())
	}
}
