package shim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

func TestOptionsHaveTwoForms(t *testing.T) {
	want := taskapi.Options{
		BinaryName: "/usr/bin/a \"b\"", Root: `/run/c\d`, SystemdCgroup: true, NoPivotRoot: true,
		ShimCgroup: "/shims", IOUid: 1000, IOGid: 1001,
	}
	body := []byte(`# as containerd's CRI writes it
BinaryName = "/usr/bin/a \"b\""
Root = '/run/c\d'
SystemdCgroup = true
noPivotRoot = true
ShimCgroup = "/shims"
IoUid = 1000
IoGid = 1001
CriuPath = ""

[table]
Root = "/not/this"
`)
	file := filepath.Join(t.TempDir(), "options.toml")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, a := range []*taskapi.Any{
		{TypeURL: "containerd.runc.v1.Options", Value: wire.Marshal(&want)},
		{TypeURL: "runtimeoptions.v1.Options", Value: wire.Marshal(&taskapi.TOMLOptions{Body: body})},
		{TypeURL: "cri.runtimeoptions.v1.Options", Value: wire.Marshal(&taskapi.TOMLOptions{Path: file})},
	} {
		if got, err := optionsOf(a); err != nil || got != want {
			t.Errorf("%s: options are %+v, %v, want %+v", a.TypeURL, got, err, want)
		}
	}
	for _, body := range []string{"IoUid = -1", "SystemdCgroup = \"yes\"", "Root = /no/quotes"} {
		_, err := optionsOf(&taskapi.Any{TypeURL: "runtimeoptions.v1.Options", Value: wire.Marshal(&taskapi.TOMLOptions{Body: []byte(body)})})
		if !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, want an invalid argument", body, err)
		}
	}
}

// A runtime that is called with a service manager's socket waits until the program
// says that it is ready.
func TestTheServiceManagersSocketIsNotPassedOn(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	for _, kv := range environ() {
		if strings.HasPrefix(kv, "NOTIFY_SOCKET=") {
			t.Errorf("what the shim runs has %s", kv)
		}
	}
}
