package ociruntime

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// A container that may say when it is ready (sd_notify(3)) has a socket of its
// own for that: it must not reach the service manager's, whose other words it
// could say, too.
const (
	notifyDir    = "notify" // in the state directory, and below /run of the container
	notifySocket = "notify.sock"
)

// withNotify is spec with the socket in it, which lies in the state directory dir.
func withNotify(spec *specs.Spec, dir string) *specs.Spec {
	const inside = "/run/" + notifyDir
	s := *spec
	s.Mounts = append(slices.Clip(s.Mounts), specs.Mount{
		Destination: inside, Type: "bind", Source: filepath.Join(dir, notifyDir),
		Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"},
	})
	if s.Process != nil {
		p := *s.Process
		p.Env = append(slices.Clip(p.Env), "NOTIFY_SOCKET="+inside+"/"+notifySocket)
		s.Process = &p
	}
	return &s
}

func makeNotifyDir(dir string) error {
	if err := os.Mkdir(filepath.Join(dir, notifyDir), 0o755); err != nil {
		return fmt.Errorf("make the directory of the notify socket: %w", err)
	}
	return nil
}

// NotifySocket is where, on the host, the container's notifications arrive: who
// wants them binds a datagram socket there before Start, which everybody may
// write to. It is "" without [CreateOptions].Notify.
func (c *Container) NotifySocket() string {
	dir := filepath.Join(c.dir, notifyDir)
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		return ""
	}
	return filepath.Join(dir, notifySocket)
}
