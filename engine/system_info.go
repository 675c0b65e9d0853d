package engine

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	registryapi "github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	systemapi "github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/atomicfile"
	"github.com/gantryd/gantry/internal/version"
)

// identity reads, or makes, the ID by which clients tell daemons apart.
func (s *system) identity() func() string {
	return sync.OnceValue(func() string {
		name := filepath.Join(s.cfg.Root, "engine-id")
		id, err := os.ReadFile(name)
		if err == nil {
			return strings.TrimSpace(string(id))
		}
		fresh := rand.Text()
		if !errors.Is(err, fs.ErrNotExist) {
			s.cfg.Log.Warn("read the engine's ID", "err", err)
		} else if err := atomicfile.WriteSync(name, []byte(fresh+"\n"), 0o600); err != nil {
			s.cfg.Log.Warn("write the engine's ID", "err", err)
		}
		return fresh
	})
}

// getInfo is GET /info.
func (s *system) getInfo(w http.ResponseWriter, r *http.Request) error {
	running, paused, stopped := s.containers.counts()
	imgs, err := s.images.count(r.Context())
	if err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	cgroups := controllers()
	below, revision, _ := s.below(r.Context()) // an info without it is better than none
	out := systemapi.Info{
		ID: s.id(), Name: host,
		Containers: running + paused + stopped, ContainersRunning: running, ContainersPaused: paused, ContainersStopped: stopped,
		Images: imgs,
		Driver: s.cfg.Snapshotter, DriverStatus: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}},
		Plugins: systemapi.PluginsInfo{
			Volume: []string{"local"}, Network: []string{"bridge", "host", "null"}, Log: []string{"json-file", "local", "none"},
		},
		MemoryLimit: cgroups["memory"], SwapLimit: swapLimit(), CPUCfsPeriod: cgroups["cpu"], CPUCfsQuota: cgroups["cpu"],
		CPUShares: cgroups["cpu"], CPUSet: cgroups["cpuset"], PidsLimit: cgroups["pids"], OomKillDisable: !unified(),
		IPv4Forwarding: sysctlOn("net/ipv4/ip_forward"),
		Debug:          s.cfg.Debug, NFd: openFiles(), NGoroutines: runtime.NumGoroutine(),
		SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: "json-file",
		CgroupDriver: s.cfg.CgroupDriver, CgroupVersion: cgroupVersion(),
		KernelVersion: kernel(), OperatingSystem: operatingSystem("PRETTY_NAME"), OSVersion: operatingSystem("VERSION_ID"),
		OSType: runtime.GOOS, Architecture: machine(), NCPU: runtime.NumCPU(), MemTotal: memTotal(),
		IndexServerAddress: "https://index.docker.io/v1/",
		RegistryConfig:     s.registryConfig(),
		GenericResources:   nil, DockerRootDir: s.cfg.Root,
		HTTPProxy: os.Getenv("HTTP_PROXY"), HTTPSProxy: os.Getenv("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"),
		Labels: []string{}, ServerVersion: version.Version,
		Runtimes:       map[string]systemapi.RuntimeWithStatus{s.cfg.Runtime: {}},
		DefaultRuntime: s.cfg.Runtime,
		Swarm:          swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		// Containers outlive the daemon always.
		LiveRestoreEnabled: true, InitBinary: "docker-init",
		ContainerdCommit: systemapi.Commit{ID: revision},
		SecurityOptions:  s.securityOptions(),
		CDISpecDirs:      []string{}, Warnings: []string{},
		Containerd: &systemapi.ContainerdInfo{
			Address:    s.cfg.ContainerdAddress,
			Namespaces: systemapi.ContainerdNamespaces{Containers: s.cfg.Namespace, Plugins: "plugins." + s.cfg.Namespace},
		},
	}
	out.DriverStatus = append(out.DriverStatus, [2]string{"containerd", below})
	return replyJSON(w, http.StatusOK, out)
}

func (s *system) registryConfig() *registryapi.ServiceConfig {
	c := &registryapi.ServiceConfig{
		IndexConfigs: map[string]*registryapi.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: []string{}, Secure: true, Official: true},
		},
		Mirrors: []string{},
	}
	for _, host := range s.cfg.InsecureRegistries {
		c.IndexConfigs[host] = &registryapi.IndexInfo{Name: host, Mirrors: []string{}}
	}
	return c
}

// securityOptions are in the form name=…,key=value.
func (s *system) securityOptions() []string {
	var opts []string
	if s.containers.appArmor.on {
		opts = append(opts, "name=apparmor")
	}
	opts = append(opts, "name=seccomp,profile=builtin")
	if s.containers.seLinux.on {
		opts = append(opts, "name=selinux")
	}
	if unified() {
		opts = append(opts, "name=cgroupns")
	}
	return opts
}

// unified says whether the machine has cgroup v2 alone.
func unified() bool {
	var st unix.Statfs_t
	return unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

func cgroupVersion() string {
	if unified() {
		return "2"
	}
	return "1"
}

// controllers that the kernel has for containers.
func controllers() map[string]bool {
	has := map[string]bool{}
	if unified() {
		list, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
		if err != nil {
			return has
		}
		for _, name := range strings.Fields(string(list)) {
			has[name] = true
		}
		return has
	}
	eachLine("/proc/cgroups", func(line string) {
		if f := strings.Fields(line); len(f) == 4 && f[1] != "0" && f[3] == "1" {
			has[f[0]] = true
		}
	})
	return has
}

func swapLimit() bool {
	if unified() {
		return true
	}
	_, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
	return err == nil
}

func sysctlOn(name string) bool {
	v, err := os.ReadFile("/proc/sys/" + name)
	return err == nil && strings.TrimSpace(string(v)) != "0"
}

// openFiles counts this process's descriptors.
func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

// operatingSystem reads a key of os-release.
func operatingSystem(key string) string {
	value := ""
	eachLine("/etc/os-release", func(line string) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			value = strings.Trim(v, `"'`)
		}
	})
	return value
}

func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

// memTotal is the machine's memory in bytes.
func memTotal() int64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// eachLine calls f with the lines of a file; one that is not there has none.
func eachLine(name string, f func(line string)) {
	file, err := os.Open(name)
	if err != nil {
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		f(lines.Text())
	}
}
