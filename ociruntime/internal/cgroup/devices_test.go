package cgroup

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// Linux 6.17 writes the last field of a query, however long the query is said to be.
func TestAQueryHasRoomForAllThatTheKernelWrites(t *testing.T) {
	const size = 64 // of union bpf_attr's query since Linux 6.6 (linux/bpf.h)
	if got := unsafe.Sizeof(progQuery{}); got != size {
		t.Errorf("it has %d bytes, the kernel's %d", got, size)
	}
}

// The kernel itself says what a device program allows: a shell in the group
// tries.
func TestDevicePrograms(t *testing.T) {
	l, err := Discover()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || l.Unified == nil {
		t.Skipf("needs root and a cgroup v2 mount: this is user %d, v2 is %v", os.Geteuid(), l.Unified)
	}
	dir := filepath.Join(l.Unified.Mount, "gt-run-devices")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := remove(dir); err != nil {
			t.Error(err)
		}
	}()
	group, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer group.Close()
	number := func(n int64) *int64 { return &n }
	deny := specs.LinuxDeviceCgroup{Access: "rwm"}
	null := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(1), Minor: number(3), Access: "rw"}
	zero := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: number(1), Minor: number(5), Access: "r"}
	all := specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}
	for _, row := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  string // what can be done of: read zero, write zero, read full
	}{
		{"without rules nothing", []specs.LinuxDeviceCgroup{}, ""},
		{"only what is allowed", []specs.LinuxDeviceCgroup{deny, null, zero}, "rz"},
		{"everything", []specs.LinuxDeviceCgroup{deny, all}, "rz wz rf"},
		{"everything but one", []specs.LinuxDeviceCgroup{all, {Type: "c", Major: number(1), Minor: number(7), Access: "rwm"}}, "rz wz"},
		{"everything but to write one", []specs.LinuxDeviceCgroup{all, {Type: "c", Major: number(1), Minor: number(5), Access: "w"}}, "rz rf"},
		{"a major number", []specs.LinuxDeviceCgroup{deny, {Allow: true, Type: "c", Major: number(1), Access: "r"}}, "rz rf"},
		{"block devices are others", []specs.LinuxDeviceCgroup{deny, {Allow: true, Type: "b"}}, ""},
		{"the last rule decides", []specs.LinuxDeviceCgroup{all, deny, zero}, "rz"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := setDevicesV2(dir, row.rules); err != nil {
				t.Fatal(err)
			}
			if ids, err := attachedDevicePrograms(int(group.Fd())); err != nil || len(ids) != 1 {
				t.Errorf("programs %v are attached, %v", ids, err)
			}
			cmd := exec.Command("/bin/sh", "-c", `
				(: < /dev/zero) 2>&- && echo rz; (: > /dev/zero) 2>&- && echo wz; (: < /dev/full) 2>&- && echo rf; true`)
			cmd.Stdin, cmd.SysProcAttr = nil, &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(group.Fd())}
			out, err := cmd.Output()
			if got := strings.Join(strings.Fields(string(out)), " "); got != row.want || err != nil {
				t.Errorf("it can %q, want %q, %v", got, row.want, err)
			}
		})
	}
	if err := setDevicesV2(dir, []specs.LinuxDeviceCgroup{{Type: "x", Major: number(1)}}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("an unknown type: %v", err)
	}
}

// The root of a user namespace may load no program for devices, and needs none: it
// can make no device. So podman of an ordinary user is on cgroup v2.
func TestDevicesNeedNoProgramInAUserNamespace(t *testing.T) {
	const inside = "GANTRY_TEST_IN_USER_NAMESPACE"
	if os.Getenv(inside) != "" {
		if err := setDevicesV2(t.TempDir(), []specs.LinuxDeviceCgroup{{Access: "rwm"}}); err != nil {
			t.Error(err)
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), inside+"=1")
	one := []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: one, GidMappings: one}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
