package rig

import (
	"strings"
	"testing"
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
