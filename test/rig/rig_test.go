package rig

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { Main(m) }

func TestRegistryServesTheBusyboxImageThatSkopeoPushed(t *testing.T) {
	host := NewHost(t)
	reg := StartRegistry(t, host)
	ref := reg.Push(t, Busybox(t), "busybox:latest")
	out := Must(t, host.Command("skopeo", "inspect", "--tls-verify=false", "docker://"+ref))
	if !strings.Contains(out, `"linux"`) {
		t.Errorf("skopeo inspect: %s", out)
	}
}

func TestTheStockStackRunsTheRigsImages(t *testing.T) {
	host := NewHost(t)
	d := StartDockerd(t, host)
	Must(t, host.Command("skopeo", "copy", "-q", "--insecure-policy", "oci:"+Python(t), "docker-archive:"+d.Dir+"/py.tar:python:3.11"))
	Must(t, d.Docker(t, "load", "-q", "-i", d.Dir+"/py.tar"))
	out := Must(t, d.Docker(t, "run", "--rm", "--network", "none", "python:3.11", "python3.11", "-c", "print(6*7)"))
	if strings.TrimSpace(out) != "42" {
		t.Errorf("python says %q", out)
	}
}

func TestLeaksAreFound(t *testing.T) {
	before, err := survey()
	if err != nil {
		t.Fatal(err)
	}
	dir := Dir(t)
	if err := unix.Mount("leak", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("/run/leak", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	hierarchies, err := cgroupMounts()
	if err != nil {
		t.Fatal(err)
	}
	group := filepath.Join(hierarchies[0].dir, "daemon", "container")
	if err := os.MkdirAll(group, 0o755); err != nil {
		t.Fatal(err)
	}
	left := before.left()
	slices.Sort(left)
	if want := []string{"cgroup " + group, "file /run/leak", "mount " + dir}; !slices.Equal(left, want) {
		t.Errorf("found %q, want %q", left, want)
	}
	for _, err := range []error{unix.Unmount(dir, 0), os.Remove("/run/leak"), os.Remove(group)} {
		if err != nil {
			t.Error(err)
		}
	}
	if left := before.left(); len(left) != 0 {
		t.Errorf("found %q after all was taken away", left)
	}
}
