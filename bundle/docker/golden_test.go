package docker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/bundle"
)

// recorded is one file of ../testdata/golden: what `docker inspect` tells of a
// container, and the config.json that dockerd 20.10 wrote for it.
type recorded struct {
	Asked struct {
		Config     container.Config
		HostConfig container.HostConfig
		Mounts     []container.MountPoint
	} `json:"asked"`
	Spec map[string]any `json:"spec"`
}

// differences are where we mean to write something else than dockerd 20.10, by
// the path in config.json.
var differences = map[string]string{
	"ociVersion":                     "dockerd writes 1.0.2-dev",
	"linux.seccomp.syscalls":         "the profile is of this release; syscalls were not recorded",
	"linux.seccomp.defaultErrnoRet":  "the newer profile says EPERM in so many words",
	"linux.seccomp.flags":            "the newer profile may have some",
	"linux.devices":                  "in a privileged container: those of this machine",
	"process.capabilities.bounding":  "ALL is what this process has, and not what the kernel knows",
	"process.capabilities.effective": "the same",
	"process.capabilities.permitted": "the same",
}

func TestSpecIsWhatStockDockerdWrites(t *testing.T) {
	cases, err := os.Open("../testdata/cases.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer cases.Close()
	sharedSource(t, "/tmp/gantry-golden-src")
	lines := bufio.NewScanner(cases)
	for lines.Scan() {
		name, flags, _ := strings.Cut(lines.Text(), " ")
		if name == "#" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Log("docker run -d", flags)
			compare(t, name)
		})
	}
}

// sharedSource makes the directory of the record's bind mounts: it must be there
// for --mount, and on a shared mount for bind-propagation.
func sharedSource(t *testing.T, dir string) {
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a tmpfs (needs root): %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Mount("", dir, "", unix.MS_SHARED, ""); err != nil {
		t.Fatal(err)
	}
}

func compare(t *testing.T, name string) {
	raw, err := os.ReadFile(filepath.Join("../testdata/golden", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	var rec recorded
	if err := json.Unmarshal(raw, &rec); err != nil {
		t.Fatal(err)
	}
	spec, err := bundle.Spec(wished(t, name, rec), image(t))
	if err != nil {
		t.Fatal(err)
	}
	got, want := plain(t, spec), rec.Spec
	for _, m := range []map[string]any{got, want} {
		normalize(m)
	}
	if name != "privileged" && name != "capall" {
		for _, set := range []string{"bounding", "effective", "permitted"} {
			if d := cmp.Diff(dig(want, "process.capabilities."+set), dig(got, "process.capabilities."+set)); d != "" {
				t.Errorf("%s capabilities (-dockerd +ours):\n%s", set, d)
			}
		}
	}
	for path := range differences {
		drop(got, path)
		drop(want, path)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("config.json (-dockerd +ours):\n%s", d)
	}
}

// wished is what the engine would ask for, given the record.
func wished(t *testing.T, name string, rec recorded) bundle.Container {
	cfg, host := &rec.Asked.Config, &rec.Asked.HostConfig
	points, err := Points(cfg, host, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Container(cfg, host)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		i := slices.IndexFunc(rec.Asked.Mounts, func(m container.MountPoint) bool { return m.Destination == p.Destination })
		if i < 0 && p.Type != mount.TypeTmpfs { // an inspect does not tell of --tmpfs
			t.Errorf("point %s: dockerd has none", p.Destination)
			continue
		}
		if p.Type == mount.TypeVolume {
			p.Source = rec.Asked.Mounts[i].Source
		}
		if i >= 0 {
			if d := cmp.Diff(rec.Asked.Mounts[i], p.MountPoint); d != "" {
				t.Errorf("point (-dockerd +ours):\n%s", d)
			}
		}
		c.Mounts = append(c.Mounts, p.Mount())
	}
	c.ID, c.Rootfs = "ID", "ROOTFS"
	c.EtcHosts, c.EtcHostname, c.EtcResolvConf = "CONTAINER/hosts", "CONTAINER/hostname", "CONTAINER/resolv.conf"
	c.CgroupsPath = "/docker/ID"
	if host.CgroupParent != "" {
		c.CgroupsPath = host.CgroupParent + "/ID"
	}
	switch name {
	case "shareable":
		c.ShmPath = "CONTAINER/mounts/shm"
	case "init":
		c.Init = "/usr/bin/docker-init"
	}
	return c
}

// image is the file system of the image of the record.
func image(t *testing.T) bundle.Root {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n",
		"group":  "root:x:0:\napp:x:1000:\nwheel:x:10:app,root\nweb:x:33:app\n",
	} {
		if err := os.MkdirAll(dir+"/etc", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+"/etc/"+name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return bundle.Root{dir}
}

func plain(t *testing.T, s *specs.Spec) map[string]any {
	raw, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// normalize takes out what says nothing: zeros, empty lists, the order of mounts
// that do not lie in each other, and the options that we add.
func normalize(m map[string]any) {
	mounts := map[string]any{}
	list, _ := m["mounts"].([]any)
	for _, x := range list {
		mt := x.(map[string]any)
		opts, _ := mt["options"].([]any)
		opts = slices.DeleteFunc(opts, func(o any) bool { return o == "rro" })
		for i, o := range opts {
			if o == "size=1m" {
				opts[i] = "size=1048576" // dockerd writes sizes for people
			}
		}
		slices.SortFunc(opts, func(a, b any) int { return strings.Compare(a.(string), b.(string)) })
		mt["options"] = opts
		mounts[mt["destination"].(string)] = mt
	}
	m["mounts"] = mounts
	if host, _ := m["linux"].(map[string]any)["namespaces"].([]any); host != nil {
		// dockerd names the host's network namespace by a path.
		m["linux"].(map[string]any)["namespaces"] = slices.DeleteFunc(host, func(n any) bool { return n.(map[string]any)["path"] == "NETNS" })
	}
	if rules, _ := dig(m, "linux.resources.devices").([]any); rules != nil {
		// dockerd denies /dev/fuse after it denied all.
		dig(m, "linux.resources").(map[string]any)["devices"] = slices.DeleteFunc(rules, func(r any) bool {
			rule := r.(map[string]any)
			return rule["allow"] != true && rule["minor"] == 229.0
		})
	}
	for _, path := range []string{"process.env", "process.user.additionalGids", "process.rlimits"} {
		if list, _ := dig(m, path).([]any); list != nil { // dockerd's order is random
			slices.SortFunc(list, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		}
	}
	prune(m)
}

// prune deletes zeros and what is empty, and says whether v is.
func prune(v any) bool {
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			if k != "soft" && k != "hard" && k != "uid" && k != "gid" && k != "oomScoreAdj" && prune(x) {
				delete(v, k)
			}
			if k == "oomScoreAdj" && x == 0.0 {
				delete(v, k)
			}
		}
		return len(v) == 0
	case []any:
		for _, x := range v {
			prune(x)
		}
		return len(v) == 0
	case nil:
		return true
	case bool:
		return !v
	case float64:
		return v == 0
	case string:
		return v == ""
	}
	return false
}

func dig(m map[string]any, path string) any {
	first, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		return m[first]
	}
	next, _ := m[first].(map[string]any)
	return dig(next, rest)
}

func drop(m map[string]any, path string) {
	first, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		delete(m, first)
		return
	}
	if next, ok := m[first].(map[string]any); ok {
		drop(next, rest)
		if len(next) == 0 {
			delete(m, first)
		}
	}
}
