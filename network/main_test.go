package network

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestMain runs the tests in network and mount namespaces of their own, so that
// the host's network is never touched, and fails if they leave anything in them.
func TestMain(m *testing.M) {
	if os.Getenv("GANTRY_NETWORK_TEST") == "" {
		os.Exit(again())
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		fmt.Fprintln(os.Stderr, "make mounts private:", err)
		os.Exit(1)
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "set loopback up:", err)
		os.Exit(1)
	}
	before, err := leftovers() // mounts of others, copied with the namespace
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	left, err := leftovers()
	left = slices.DeleteFunc(left, func(s string) bool { return slices.Contains(before, s) })
	if err != nil || len(left) > 0 {
		fmt.Fprintln(os.Stderr, "the tests left behind:", left, err)
		code = 1
	}
	os.Exit(code)
}

// again runs the test program in new namespaces.
func again() int {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the tests of package network need root")
		return 1
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), "GANTRY_NETWORK_TEST=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL,
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own:", err)
	return 1
}

// leftovers names what is in the network namespace beside lo, and every pinned
// namespace.
func leftovers() ([]string, error) {
	var left []string
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		// The kernel makes the ifb devices itself when the module is built in.
		if name := l.Attrs().Name; name != "lo" && l.Type() != "ifb" && l.Type() != "sit" && l.Type() != "ip6tnl" {
			left = append(left, "link "+name)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(mounts) {
		if strings.Contains(string(line), " - nsfs ") {
			left = append(left, "mount "+string(bytes.TrimSpace(line)))
		}
	}
	tables, err := (&nftables.Conn{}).ListTables()
	if err != nil {
		return nil, err
	}
	for _, table := range tables {
		left = append(left, "table "+table.Name)
	}
	return left, nil
}
