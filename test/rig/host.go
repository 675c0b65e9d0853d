package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Host is a network namespace that plays a machine: daemons in it make bridges
// and nft tables that the real machine never sees. Mounts, processes and cgroups
// are those of the machine, as daemons and shims must share them.
type Host struct {
	netns string
	first []string // directories before the others in PATH
}

// NewHost makes a test host with the loopback device up.
func NewHost(t testing.TB) *Host {
	t.Helper()
	h := &Host{netns: filepath.Join(Dir(t), "net")}
	if err := os.WriteFile(h.netns, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread ends with its namespace
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- err
			return
		}
		made <- unix.Mount("/proc/thread-self/ns/net", h.netns, "", unix.MS_BIND, "")
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.clean(t)
		if err := unix.Unmount(h.netns, unix.MNT_DETACH); err != nil {
			t.Errorf("let go of test host: %v", err)
		}
	})
	Must(t, h.Command("ip", "link", "set", "lo", "up"))
	return h
}

// clean fails the test when containers left a link or a published port on the
// host. Their daemons have ended; bridges and tables stay for the next one.
func (h *Host) clean(t testing.TB) {
	var left string
	for range 300 {
		links := Must(t, h.Command("ip", "-o", "link", "show", "type", "veth"))
		ports := ""
		for table := range strings.Lines(Must(t, h.Command("nft", "list", "tables"))) {
			if f := strings.Fields(table); len(f) == 3 && strings.HasPrefix(f[2], "gantry") {
				for _, name := range []string{"port_at", "port_any", "range_at", "range_any"} {
					if out := Must(t, h.Command("nft", "list", "map", f[1], f[2], name)); strings.Contains(out, "elements") {
						ports += out
					}
				}
			}
		}
		if left = links + ports; left == "" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("left on the host's network:\n%s", left)
}

// Here is the machine, or the namespaces, that the test itself runs in.
func Here(testing.TB) *Host { return &Host{} }

// Prefer makes commands and daemons that are started from now on find programs in
// dir before others.
func (h *Host) Prefer(dir string) { h.first = append(h.first, dir) }

// Command is a command that runs on the host. nsenter becomes the program, so the
// process id is the program's.
func (h *Host) Command(name string, args ...string) *exec.Cmd {
	if h.netns != "" {
		name, args = "nsenter", append([]string{"--net=" + h.netns, "--", name}, args...)
	}
	cmd := exec.Command(name, args...)
	if len(h.first) > 0 {
		cmd.Env = append(os.Environ(), "PATH="+strings.Join(append(h.first[:len(h.first):len(h.first)], os.Getenv("PATH")), ":"))
	}
	return cmd
}
