package ociruntime

import (
	"context"
	"errors"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ownNetwork gives the test a network namespace in place of the host's. Its
// thread is not used again.
func ownNetwork(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("ip", "-V").CombinedOutput(); err != nil || !strings.Contains(string(out), "iproute2") {
		t.Skipf("busybox's ip cannot name both ends of a pair: iproute2 is needed, and here is %.40q", out)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
}

func TestNetworkDevicesMoveIn(t *testing.T) {
	r := newRig(t)
	ownNetwork(t)
	for _, args := range []string{
		"link add gtz type veth peer name gtb",
		"link set gtz mtu 1400 address 02:00:00:00:00:07 up", "link set gtb up",
		"addr add 10.201.77.2/24 brd + dev gtz", "addr add fd00:77::2/64 dev gtz nodad",
		"addr add 10.201.78.2/24 scope link dev gtz",
		"addr add 10.201.79.2/24 dev gtz valid_lft 1000 preferred_lft 1000",
		"link add gt0 type veth peer name gtc",
	} {
		ip(t, args)
	}
	s := dockerSpec(t, "sh", "-c", `ip -o addr show dev net1 | tr -s ' ' | cut -d ' ' -f 3,4 | grep -v fe80
		cat /sys/class/net/net1/mtu /sys/class/net/net1/address /proc/sys/net/ipv4/conf/net1/forwarding
		ip route | cut -d ' ' -f 1-3`)
	// They are moved by their names: net0 is taken when gtz comes.
	s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"gt0": {Name: "net0"}, "gtz": {Name: "net%d"}}
	s.Linux.Sysctl = map[string]string{"net/ipv4/conf/net1/forwarding": "1"}
	r.prints("inet 10.201.77.2/24\ninet6 fd00:77::2/64\n1400\n02:00:00:00:00:07\n1\n10.201.77.0/24 dev net1", s)
}

func TestNetworkDevicesThatCannotMove(t *testing.T) {
	r := newRig(t)
	ownNetwork(t)
	ip(t, "link add gta type veth peer name gtb")
	for _, row := range []struct {
		name    string
		devices map[string]specs.LinuxNetDevice
		change  func(s *specs.Spec)
		err     string
	}{
		{"one that is not there", map[string]specs.LinuxNetDevice{"gtnone": {}}, nil, "linux.netDevices: move gtnone into the container: no such device"},
		{"a name that is taken", map[string]specs.LinuxNetDevice{"gta": {Name: "lo"}}, nil, "move gta into the container: name it lo: file exists"},
		{"no name", map[string]specs.LinuxNetDevice{"gta": {Name: "a/b"}}, nil, `linux.netDevices: "a/b" is no name`},
		{"too long a name", map[string]specs.LinuxNetDevice{"gta": {Name: "sixteen-letters-"}}, nil, "is no name"},
		{"two templates", map[string]specs.LinuxNetDevice{"gta": {Name: "%d%d"}}, nil, "linux.netDevices"},
		{"no namespace", map[string]specs.LinuxNetDevice{"gta": {}}, func(s *specs.Spec) {
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "uts"}, {Type: "pid"}}
		}, "linux.netDevices: it needs a network namespace"},
	} {
		s := dockerSpec(t, "true")
		s.Linux.NetDevices = row.devices
		if row.change != nil {
			row.change(s)
		}
		if _, err := r.create(s); err == nil || !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: %v, want %q", row.name, err, row.err)
		}
		ip(t, "link show gta") // it is where it was
	}
	s := dockerSpec(t, "true")
	s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"gta": {}}
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/false"}}}
	if _, err := r.create(s); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
