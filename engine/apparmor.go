package engine

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"

	"github.com/moby/moby/api/types/container"

	"github.com/gantryd/gantry/bundle/docker"
)

// defaultProfile is the AppArmor profile of containers that ask for none, under
// the name that dockerd gives to its own: what an administrator has loaded under
// it is left as it is.
const (
	defaultProfile = "docker-default"
	unconfined     = "unconfined"
)

// profileText allows everything but what would reach the host by a procfs or a
// sysfs that is writable, and mounts. A signal, or a trace, goes to containers only;
// one of the daemons' side, which some distributions confine, is received.
const profileText = `profile docker-default flags=(attach_disconnected,mediate_deleted) {
  network,
  capability,
  file,
  umount,
  deny mount,

  signal (receive) peer=unconfined,
  signal (receive) peer={runc,crun},
  signal (send,receive) peer=docker-default,
  ptrace (trace,read,tracedby,readby) peer=docker-default,

  # In /proc a container writes to its processes, and to the sysctls of shared memory.
  deny /proc/* w,
  deny /proc/{[^1-9s],s[^y]}** w,
  deny /proc/sys/{[^k],kernel/[^s],kernel/s[^h],kernel/sh[^m]}** w,
  deny /proc/{kcore,sysrq-trigger} rwklx,

  # In /sys it has its cgroups.
  deny /sys/{[^f],f[^s],fs/[^c],fs/c[^g]}** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
}
`

// appArmor knows what AppArmor the machine has.
type appArmor struct {
	kernel bool // the kernel uses it
	on     bool // containers that ask for no profile have the default one

	mu sync.Mutex // one loads the profile at a time
}

// newAppArmor looks for AppArmor. Without its parser there is no default profile, as
// with dockerd.
func newAppArmor() *appArmor {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	kernel := err == nil && strings.HasPrefix(string(enabled), "Y")
	_, noParser := exec.LookPath(parserName())
	return &appArmor{kernel: kernel, on: kernel && noParser == nil}
}

// parserName is the program that loads profiles; the PATH of a daemon may lack it.
func parserName() string {
	for _, name := range []string{"/sbin/apparmor_parser", "/usr/sbin/apparmor_parser"} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	return "apparmor_parser"
}

// profile is that of a container, "" where there is no AppArmor.
func (a *appArmor) profile(host *container.HostConfig) string {
	told := docker.SecurityValues(host.SecurityOpt, "apparmor")
	switch {
	case a.kernel && len(told) > 0:
		return told[len(told)-1]
	case !a.on:
		return ""
	case host.Privileged:
		return unconfined
	}
	return defaultProfile
}

// ensure has the kernel know a profile that is ours to load. It is asked at each
// start: an update of the machine's profiles may have taken it away.
func (a *appArmor) ensure(profile string) error {
	if profile != defaultProfile {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	loaded, err := isLoaded(profile)
	if err != nil || loaded {
		return err
	}
	cmd := exec.Command(parserName(), "--skip-cache", "--replace")
	cmd.Stdin = strings.NewReader(profileText)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("load AppArmor profile %s: %w: %s", profile, err, bytes.TrimSpace(out))
	}
	return nil
}

// isLoaded looks in the kernel's list: lines of "NAME (MODE)".
func isLoaded(profile string) (bool, error) {
	const list = "/sys/kernel/security/apparmor/profiles"
	data, err := os.ReadFile(list)
	if err != nil {
		return false, fmt.Errorf("look for AppArmor profile %s: %w", profile, err)
	}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, profile+" (") {
			return true, nil
		}
	}
	return false, nil
}
