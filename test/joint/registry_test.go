package joint

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

func TestImagesComeFromAStockRegistryAndGoBack(t *testing.T) {
	host := rig.NewHost(t)
	reg := rig.StartRegistry(t, host)
	g := rig.StartGantryd(t, host)
	for _, cli := range []user{{host, g.Gantry}, {host, g.Docker}} {
		t.Run("run pulls what is absent", func(t *testing.T) {
			ref := reg.Push(t, rig.Busybox(t), "busybox:latest")
			r := cli.run(t, "run", "--rm", ref, "echo", "pulled")
			if r.Code != 0 || r.Stdout != "pulled\n" || !strings.Contains(r.Stderr, "Unable to find image '"+ref+"' locally") {
				t.Errorf("code %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
			}
			cli.must(t, "rmi", ref)
		})
		t.Run("Debian and, on top of it, Python", func(t *testing.T) {
			debian := reg.Push(t, rig.Debian(t), "debian:bookworm")
			python := reg.Push(t, rig.Python(t), "python:3.11")
			if out := cli.must(t, "run", "--rm", debian, "sh", "-c", ". /etc/os-release; echo $ID $VERSION_ID"); out != "debian 12\n" {
				t.Errorf("debian says %q", out)
			}
			if out := cli.must(t, "run", "--rm", python, "python3.11", "-c", "import ssl, json, os; print(6*7, os.getcwd())"); out != "42 /srv\n" {
				t.Errorf("python says %q", out)
			}
			cli.must(t, "rmi", debian, python)
		})
		t.Run("push, then the stock tools read it", func(t *testing.T) {
			ref := reg.Push(t, rig.Busybox(t), "busybox:latest")
			cli.must(t, "pull", "-q", ref)
			cli.must(t, "tag", ref, reg.Addr+"/pushed:2")
			cli.must(t, "push", reg.Addr+"/pushed:2")
			if out := rig.Must(t, host.Command("skopeo", "inspect", "--tls-verify=false", "docker://"+reg.Addr+"/pushed:2")); !strings.Contains(out, "sha256:") {
				t.Errorf("skopeo says %s", out)
			}
			cli.must(t, "rmi", ref, reg.Addr+"/pushed:2")
		})
		t.Run("save is what skopeo copies", func(t *testing.T) {
			ref := reg.Push(t, rig.Busybox(t), "busybox:latest")
			cli.must(t, "pull", "-q", ref)
			file := filepath.Join(rig.Dir(t), "saved.tar")
			cli.must(t, "save", "-o", file, ref)
			rig.Must(t, host.Command("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "docker-archive:"+file, "docker://"+reg.Addr+"/saved:1"))
			rig.Must(t, host.Command("skopeo", "copy", "-q", "--insecure-policy", "--dest-tls-verify=false", "oci-archive:"+file, "docker://"+reg.Addr+"/saved:2"))
			cli.must(t, "rmi", ref)
		})
	}
	t.Run("an unknown image is 125 and named", func(t *testing.T) {
		for _, cli := range []user{{host, g.Gantry}, {host, g.Docker}} {
			fails(125, reg.Addr+"/nosuch", "run", "--rm", reg.Addr+"/nosuch:1", "true")(t, cli)
		}
	})
	t.Run("a registry that is not there is named", func(t *testing.T) {
		fails(125, "127.0.0.1:5999", "run", "--rm", "127.0.0.1:5999/busybox", "true")(t, user{host, g.Gantry})
	})
	t.Run("a corrupt layer is refused and leaves no image", func(t *testing.T) {
		ref := reg.Push(t, rig.Python(t), "corrupt:1")
		corruptLargestBlob(t, filepath.Dir(reg.Log))
		for _, cli := range []user{{host, g.Gantry}, {host, g.Docker}} {
			r := cli.run(t, "pull", ref)
			if r.Code == 0 || !strings.Contains(r.Stdout+r.Stderr, "sha256:") {
				t.Errorf("code %d, stdout %q, stderr %q", r.Code, r.Stdout, r.Stderr)
			}
			if out := cli.must(t, "images", "-q", ref); out != "" {
				t.Errorf("image left: %s", out)
			}
		}
	})
}

func TestLoadReadsWhatStockDockerSaves(t *testing.T) {
	host := rig.NewHost(t)
	d := rig.StartDockerd(t, host)
	stock := user{host, d.Docker}
	stock.must(t, "load", "-q", "-i", archive(t, host))
	file := filepath.Join(rig.Dir(t), "saved.tar")
	stock.must(t, "tag", "busybox:latest", "example.org/also:2")
	stock.must(t, "save", "-o", file, "busybox:latest", "example.org/also:2")

	g := rig.StartGantryd(t, host)
	ours := user{host, g.Gantry}
	ours.must(t, "load", "-q", "-i", file)
	for _, name := range []string{"busybox:latest", "example.org/also:2"} {
		if out := ours.must(t, "run", "--rm", "--pull", "never", name, "echo", "loaded"); out != "loaded\n" {
			t.Errorf("%s says %q", name, out)
		}
	}
	// And back: what we save, the stock one loads.
	again := filepath.Join(rig.Dir(t), "again.tar")
	ours.must(t, "save", "-o", again, "example.org/also:2")
	stock.must(t, "rmi", "-f", "busybox:latest", "example.org/also:2")
	if out := stock.must(t, "load", "-i", again); !strings.Contains(out, "example.org/also:2") {
		t.Errorf("docker load says %q", out)
	}
}

// corruptLargestBlob flips bytes in the middle of the largest blob of a registry.
func corruptLargestBlob(t *testing.T, dir string) {
	t.Helper()
	var largest string
	var size int64
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Name() == "data" && info.Size() > size {
			largest, size = path, info.Size()
		}
		return err
	})
	if err != nil || largest == "" {
		t.Fatalf("find the largest blob: %v", err)
	}
	file, err := os.OpenFile(largest, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte("garbage, not what was pushed"), size/2); err != nil {
		t.Fatal(err)
	}
}

func TestOurEnginePullsThroughStockContainerd(t *testing.T) {
	host := rig.NewHost(t)
	reg := rig.StartRegistry(t, host)
	c := rig.StartContainerd(t, host)
	g := rig.StartGantryd(t, host, "--roles", "engine", "--containerd-address", c.Address)
	ref := reg.Push(t, rig.Busybox(t), "busybox:latest")
	if out := rig.Must(t, g.Gantry(t, "run", "--rm", ref, "echo", "pulled")); out != "pulled\n" {
		t.Errorf("run says %q", out)
	}
	if out := rig.Must(t, rig.Ctr(t, host, c.Address, "moby", "images", "check")); !strings.Contains(out, "complete") {
		t.Errorf("ctr finds the image not whole: %s", out)
	}
	rig.Must(t, g.Gantry(t, "rmi", ref))
}

func TestDiskFullWhileUnpackingLeavesNothing(t *testing.T) {
	host := rig.NewHost(t)
	reg := rig.StartRegistry(t, host)
	ref := reg.Push(t, rig.Big(t), "big:latest")
	small := rig.Dir(t)
	rig.Must(t, host.Command("mount", "-t", "tmpfs", "-o", "size=120m", "small", small))
	t.Cleanup(func() { rig.Must(t, host.Command("umount", small)) })
	g := rig.StartGantryd(t, host, "--containerd-root", small)
	r := rig.Run(t, g.Gantry(t, "pull", "-q", ref))
	if r.Code == 0 || !strings.HasSuffix(r.Stderr, "no space left on device\n") || strings.Count(r.Stderr, "\n") != 1 {
		t.Errorf("code %d, %q", r.Code, r.Stderr)
	}
	if out := rig.Must(t, g.Gantry(t, "images", "-q")); out != "" {
		t.Errorf("image left: %s", out)
	}
	if out := rig.Must(t, rig.Ctr(t, host, g.ContainerdAddress, "moby", "snapshots", "ls")); strings.Contains(out, "Active") {
		t.Errorf("half-made snapshot left: %s", out)
	}
	g.Stop()
	if left := fmt.Sprint(mountsBelow(t, small)); left != "[]" {
		t.Errorf("mounts left: %s", left)
	}
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); strings.HasPrefix(f[1], dir+"/") {
			out = append(out, f[1])
		}
	}
	return out
}
