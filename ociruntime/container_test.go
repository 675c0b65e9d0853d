package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestTheContainerSeesItself(t *testing.T) {
	uid := uint32(1000)
	for _, row := range []struct {
		name   string
		change func(s *specs.Spec)
		script string
		want   string
	}{
		{"it is process 1 with the hostname", nil, "echo $$ $(hostname)", "1 box"},
		{"nothing of the host is open in it", nil, "ls /proc/self/fd", "0\n1\n2\n3"}, // 3 is the directory itself
		{"it runs as the user", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: uid, GID: 1000, AdditionalGids: []uint32{5, 6}}
		}, "id -u; id -G", "1000\n1000 5 6"},
		{"HOME comes from its passwd", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: uid, GID: 1000}
			s.Process.Env = []string{"PATH=/bin"}
		}, "echo $HOME", "/home/alice"},
		{"capabilities are docker's", nil, "grep CapEff /proc/self/status", "CapEff:\t00000000a80425fb"},
		{"a user has no capability", func(s *specs.Spec) { s.Process.User.UID = uid }, "grep CapEff /proc/self/status", "CapEff:\t0000000000000000"},
		{"seccomp is loaded", nil, "grep Seccomp: /proc/self/status", "Seccomp:\t2"},
		{"seccomp refuses", nil, "mount -t tmpfs x /tmp 2>&1 | grep -c -i 'denied\\|permitted'", "1"},
		{"no new privileges", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }, "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1"},
		{"masked files are empty", nil, "cat /proc/keys /proc/timer_list | wc -c; ls /proc/acpi /sys/firmware 2>/dev/null | grep -v :", "0"},
		{"masks leave no mount on the root", nil, "grep -c ' / / ' /proc/self/mountinfo; true", "0"},
		{"sysctl files are read-only", nil, "touch /proc/sys/kernel/domainname 2>&1 | grep -c -i read-only", "1"},
		{"a read-only root", func(s *specs.Spec) { s.Root.Readonly = true }, "touch /x 2>&1 | grep -c -i read-only; touch /dev/shm/y && echo ok", "1\nok"},
		{"sysctls are set", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1", "kernel.shmmax": "4096"}
		}, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax", "1\n4096"},
		{"rlimits are set", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128}}
		}, "ulimit -n; ulimit -Hn", "64\n128"},
		{"the working directory is made", func(s *specs.Spec) { s.Process.Cwd = "/made/for/me" }, "pwd", "/made/for/me"},
		{"umask", func(s *specs.Spec) { m := uint32(0o077); s.Process.User.Umask = &m }, "umask", "0077"},
		{"devices work", nil, "head -c 3 /dev/zero | wc -c; echo x > /dev/null; readlink /dev/stdin", "3\n/proc/self/fd/0"},
		{"the device cgroup refuses", func(s *specs.Spec) {
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mem2", Type: "c", Major: 1, Minor: 1}}
		}, "head -c 1 /dev/mem2 2>&1 | grep -c -i permitted", "1"},
		{"a device of the spec", func(s *specs.Spec) {
			major, minor := int64(1), int64(5)
			s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/a/nil", Type: "c", Major: major, Minor: minor, UID: &uid}}
		}, "stat -c '%u %a %t:%T' /dev/a/nil", "1000 666 1:5"},
		{"domainname", func(s *specs.Spec) { s.Domainname = "example.org" }, "cat /proc/sys/kernel/domainname", "example.org"},
		{"its own cgroup is shown", nil, "cat /sys/fs/cgroup/pids/tasks /sys/fs/cgroup/cgroup.procs 2>/dev/null | grep -c '^1$'", "1"}, // v1 or v2
		{"a cgroup namespace", func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "cgroup"})
		}, "(grep pids /proc/self/cgroup || cat /proc/self/cgroup) | cut -d: -f3", "/"},
		{"a time namespace", func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "time"})
			s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 100000000}}
		}, "test $(cut -d. -f1 /proc/uptime) -gt 100000000 && echo later", "later"},
		{"mounts below a link that leads nowhere", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/var/run/deep", Type: "tmpfs", Source: "tmpfs"})
		}, "grep -c ' /run/deep ' /proc/self/mountinfo", "1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			s := dockerSpec(t, "sh", "-c", row.script)
			if row.change != nil {
				row.change(s)
			}
			r.prints(row.want, s)
		})
	}
}

func TestMounts(t *testing.T) {
	for _, row := range []struct {
		name   string
		mount  specs.Mount
		script string
		want   string
	}{
		{"a directory", specs.Mount{Destination: "/data", Source: "dir", Type: "bind", Options: []string{"rbind"}}, "cat /data/file; echo new > /data/new; cat /data/new", "hello\nnew"},
		{"a file", specs.Mount{Destination: "/etc/f", Source: "dir/file", Type: "bind", Options: []string{"bind"}}, "cat /etc/f", "hello"},
		{"read-only", specs.Mount{Destination: "/data", Source: "dir", Type: "bind", Options: []string{"rbind", "ro"}}, "touch /data/x 2>&1 | grep -c -i read-only", "1"},
		{"recursively read-only", specs.Mount{Destination: "/data", Source: "dir", Type: "bind", Options: []string{"rbind", "rro"}}, "touch /data/sub/x 2>&1 | grep -c -i read-only", "1"},
		{"read-only, but not below", specs.Mount{Destination: "/data", Source: "dir", Type: "bind", Options: []string{"rbind", "ro"}}, "touch /data/sub/x && echo ok", "ok"},
		{"tmpfs with options", specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=64k", "mode=1700", "noexec"}}, "stat -c %a /t; grep -c ' /t .*noexec.*size=64k' /proc/self/mountinfo", "1700\n1"},
		{"a tmpfs takes the mode of what it covers", specs.Mount{Destination: "/root", Type: "tmpfs", Source: "tmpfs"}, "stat -c %a /root", "755"},
		{"a tmpfs begins with what it covers", specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "nosuid"}}, "grep -c alice /etc/passwd; touch /etc/x && echo ok; stat -c %a /etc; grep -c ' /etc .*nosuid' /proc/self/mountinfo", "1\nok\n755\n1"},
		{"a read-only tmpfs begins so too", specs.Mount{Destination: "/bin", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "ro", "size=4m"}}, "readlink /bin/cat; touch /bin/x 2>&1 | grep -c -i read-only", "busybox\n1"},
		{"a tmpfs begins with nothing where nothing was", specs.Mount{Destination: "/new/dir", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}}, "ls /new/dir | wc -l", "0"},
		{"ids are mapped", specs.Mount{
			Destination: "/data", Source: "dir", Type: "bind", Options: []string{"rbind"},
			UIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 70000, Size: 10}},
			GIDMappings: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 80000, Size: 10}},
		}, "stat -c %u:%g /data/file", "70000:80000"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			if len(row.mount.UIDMappings) > 0 && onTmpfs(t, r.dir) {
				needsLinux(t, 6, 3, "id-mapped mounts of a tmpfs")
			}
			dir := filepath.Join(r.dir, "dir")
			sub := filepath.Join(dir, "sub")
			if err := errors.Join(os.MkdirAll(sub, 0o755), os.WriteFile(filepath.Join(dir, "file"), []byte("hello\n"), 0o644), unix.Mount("tmpfs", sub, "tmpfs", 0, "")); err != nil {
				t.Fatal(err)
			}
			defer unix.Unmount(sub, unix.MNT_DETACH)
			s := dockerSpec(t, "sh", "-c", row.script)
			if row.mount.Type == "bind" {
				row.mount.Source = filepath.Join(r.dir, row.mount.Source)
			}
			s.Mounts = append(s.Mounts, row.mount)
			r.prints(row.want, s)
			if left := mounted(t, r.dir); len(left) != 1 {
				t.Errorf("mounts are left: %q", left)
			}
		})
	}
}

// withUserNamespace is a spec with ids mapped as podman or CRI do.
func withUserNamespace(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
}

func TestATmpfsBeginsWithTheMountBelow(t *testing.T) {
	r := newRig(t)
	dir := filepath.Join(r.dir, "dir")
	secret := filepath.Join(r.dir, "secret")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "sub/deep"), 0o755), os.WriteFile(filepath.Join(dir, "sub/deep/file"), []byte("hello\n"), 0o4750),
		os.Chown(filepath.Join(dir, "sub/deep/file"), 7, 8), os.WriteFile(secret, []byte("secret"), 0o644),
		os.Chmod(filepath.Join(dir, "sub/deep/file"), 0o4750|os.ModeSetuid),
		os.Symlink(secret, filepath.Join(dir, "sub/link")), unix.Mkfifo(filepath.Join(dir, "sub/fifo"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	s := dockerSpec(t, "sh", "-c", "stat -c '%a %u:%g' /data/sub/deep/file; cat /data/sub/deep/file /data/sub/link 2>/dev/null; ls /data/sub; ls /out | wc -l")
	up := []string{"tmpcopyup"}
	s.Mounts = append(
		s.Mounts,
		specs.Mount{Destination: "/data", Source: dir, Type: "bind", Options: []string{"rbind"}},
		specs.Mount{Destination: "/data/sub", Type: "tmpfs", Source: "tmpfs", Options: up},
		specs.Mount{Destination: "/out", Type: "tmpfs", Source: "tmpfs", Options: up},
	)
	r.prints("4750 7:8\nhello\ndeep\nfifo\nlink\n0", s, func(o *CreateOptions) {
		if err := os.Symlink("/../../../../../../"+dir, filepath.Join(o.Bundle, "rootfs/out")); err != nil {
			t.Fatal(err)
		}
	})
	s.Mounts[len(s.Mounts)-1] = specs.Mount{Destination: "/dev/shm", Type: "mqueue", Source: "mqueue", Options: up}
	if _, err := r.create(s); err == nil || !strings.Contains(err.Error(), "option tmpcopyup is for a tmpfs") {
		t.Errorf("%v", err)
	}
}

func TestUserNamespace(t *testing.T) {
	r := newRig(t)
	if err := os.Chmod(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	os.Chmod(filepath.Dir(r.dir), 0o755)
	s := dockerSpec(t, "sleep", "100")
	withUserNamespace(s)
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, _, err := b.exec(process(s, "sh", "-c", "cat /proc/self/uid_map | tr -s ' '; id -u; echo x > /dev/null && ls /proc/self/fd; grep -c . /proc/1/status > /dev/null && echo sees; touch /dev/shm/z; stat -c %u /dev/shm/z"))
	if want := "0 100000 65536\n0\n0\n1\n2\n3\nsees\n0"; err != nil || strings.TrimSpace(out) != want {
		t.Errorf("exec printed %q, want %q, %v", out, want, err)
	}
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d", b.Pid), &st); err != nil || st.Uid != 100000 {
		t.Errorf("on the host it is user %d, %v", st.Uid, err)
	}
	// A second container in the first one's namespaces, as a pod has.
	pod := dockerSpec(t, "sh", "-c", "id -u; cat /proc/self/uid_map | tr -s ' '; hostname")
	for i, n := range pod.Linux.Namespaces {
		if file := map[specs.LinuxNamespaceType]string{"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}[n.Type]; file != "" {
			pod.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", b.Pid, file)
		}
	}
	pod.Linux.Namespaces = append(pod.Linux.Namespaces, specs.LinuxNamespace{Type: "user", Path: fmt.Sprintf("/proc/%d/ns/user", b.Pid)})
	pod.Hostname = ""
	r.prints("0\n 0 100000 65536\nbox", pod)
}

func TestUserNamespaceWithoutRoot(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sh", "-c", "read wait; id -u; id -g; grep CapEff /proc/self/status; stat -c %u /dev/shm; ulimit -Hn")
	stdin, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	withUserNamespace(s)
	s.Mounts[2].Options = []string{"newinstance", "ptmxmode=0666"} // the map has no group 5
	s.Linux.UIDMappings[0].ContainerID, s.Linux.GIDMappings[0].ContainerID = 1000, 2000
	s.Process.User = specs.User{UID: 1005, GID: 2005}
	s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 64, Hard: 128}}
	s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/true"}}}
	b, err := r.create(s, func(o *CreateOptions) { o.Stdin = stdin })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, _, err := b.exec(process(s, "sh", "-c", "id -u; ulimit -Hn; grep CapEff /proc/self/status"))
	if want := "1005\n128\nCapEff:\t0000000000000000"; err != nil || out != want {
		t.Errorf("exec printed %q, want %q, %v", out, want, err)
	}
	end.Close()
	b.wait()
	if err := b.Delete(context.Background(), false); err != nil {
		t.Error(err)
	}
	if want := "1005\n2005\nCapEff:\t0000000000000000\n1000\n128\n"; b.output() != want {
		t.Errorf("it printed %q, want %q", b.output(), want)
	}
}

func TestProcessorsAndMemory(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sleep", "100")
	s.Process.ExecCPUAffinity = &specs.CPUAffinity{Initial: "1", Final: "0"}
	s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0", Flags: []specs.MemoryPolicyFlagType{specs.MpolFStaticNodes}}
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		affinity *specs.CPUAffinity
		want     string
	}{
		{nil, "0"}, // the container's own
		{&specs.CPUAffinity{Initial: "0", Final: "1"}, "1"},
		{&specs.CPUAffinity{Final: "0,1"}, "0-1"},
		{&specs.CPUAffinity{Initial: "1"}, "1"},
	} {
		if row.affinity != nil && row.affinity.Final == "" && !linuxIs(t, 6, 2) {
			continue // joining a cpuset took the initial affinity away
		}
		p := process(s, "grep", "Cpus_allowed_list", "/proc/self/status")
		p.ExecCPUAffinity = row.affinity
		if out, _, err := b.exec(p); err != nil || out != "Cpus_allowed_list:\t"+row.want {
			t.Errorf("with %+v exec printed %q, want %q, %v", row.affinity, out, row.want, err)
		}
	}
	out, _, err := b.exec(process(s, "sh", "-c", "grep -c 'bind=static:0' /proc/self/numa_maps > /dev/null && echo bound"))
	if err != nil || out != "bound" {
		t.Errorf("memory of an exec is not bound to node 0: %q, %v", out, err)
	}
	var old unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil || old.Count() < 2 {
		t.Errorf("this thread runs on %d processors, %v", old.Count(), err)
	}
}

func TestListsOfProcessors(t *testing.T) {
	for list, want := range map[string]string{
		"0": "0100000000000000", "0-3,7": "8f00000000000000", "64": "00000000000000000100000000000000",
		"": "", "3-1": "", "x": "", "1,": "", "99999999": "", "-1": "",
	} {
		got, err := parseMask(list)
		if fmt.Sprintf("%x", got) != want || (err == nil) != (want != "") {
			t.Errorf("%q is %x, %v", list, got, err)
		}
	}
}

func TestJoinedNamespaces(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sleep", "100")
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	s2 := dockerSpec(t, "sh", "-c", "hostname; ps | grep -c '[s]leep 100'; test $$ != 1 && echo second")
	for i, n := range s2.Linux.Namespaces {
		if file := map[specs.LinuxNamespaceType]string{"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}[n.Type]; file != "" {
			s2.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", b.Pid, file)
		}
	}
	s2.Hostname = ""
	r.prints("box\n1\nsecond", s2)
}

// Without namespaces of its own a container shares all with the runtime but
// the root, and leaves no mount behind.
func TestNoNamespaces(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sh", "-c", "echo started > /tmp/f; ls / | tr '\\n' ' '; sleep 100")
	s.Linux.Namespaces, s.Hostname = nil, ""
	s.Mounts[3].Options = append(s.Mounts[3].Options, "rbind")
	s.Mounts[3].Type, s.Mounts[3].Source = "bind", "/sys"
	s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/bin/busybox", Args: []string{"touch", "/tmp/hook"}}}}
	before := len(mounted(t, r.dir))
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	out, _, err := b.exec(process(s, "sh", "-c", "until test -s /tmp/f; do :; done; readlink /proc/self/ns/mnt; pwd; ls /tmp; cat /tmp/f"))
	own, lerr := os.Readlink("/proc/self/ns/mnt")
	if want := own + "\n/\nf\nhook\nstarted"; err != nil || lerr != nil || out != want {
		t.Errorf("exec printed %q, want %q, %v, %v", out, want, err, lerr)
	}
	if n := len(mounted(t, r.dir)); n <= before {
		t.Errorf("%d mounts before, %d with the container", before, n)
	}
	if err := b.Delete(context.Background(), true); err != nil {
		t.Fatal(err)
	}
	b.wait()
	if left := mounted(t, r.dir); len(left) != before {
		t.Errorf("%d mounts before, left are %q", before, left)
	}
	s.Process.Args = []string{"/no/program"}
	if _, err := r.create(s); err == nil {
		t.Error("a program that is not there is executed")
	}
	if left := mounted(t, r.dir); len(left) != before {
		t.Errorf("after a failure %q are left", left)
	}
}

func TestTerminal(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sh", "-c", "tty; echo -n; read line; echo got $line; ls /proc/self/fd | tail -n 1")
	s.Process.Terminal = true
	s.Process.ConsoleSize = &specs.Box{Height: 33, Width: 77}
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if b.Console == nil {
		t.Fatal("no console")
	}
	defer b.Console.Close()
	size, err := unix.IoctlGetWinsize(int(b.Console.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Row != 33 || size.Col != 77 {
		t.Errorf("size %+v, %v", size, err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Console.WriteString("hi\n"); err != nil {
		t.Error(err)
	}
	b.wait()
	var out []byte
	for buf := make([]byte, 4096); ; {
		n, err := b.Console.Read(buf)
		out = append(out, buf[:n]...)
		if err != nil {
			break
		}
	}
	got := strings.ReplaceAll(string(out), "\r", "")
	if !strings.Contains(got, "/dev/console\n") && !strings.Contains(got, "/dev/pts/0\n") || !strings.Contains(got, "got hi\n3\n") {
		t.Errorf("the terminal says %q", got)
	}
	if err := b.Delete(context.Background(), false); err != nil {
		t.Error(err)
	}
}

func TestHooks(t *testing.T) {
	r := newRig(t)
	log := filepath.Join(r.dir, "log")
	s := dockerSpec(t, "sh", "-c", "echo program >> /log/log")
	hook := func(name string) []specs.Hook {
		script := fmt.Sprintf(`state=$(cat); echo %s $(echo $state | grep -o '"status":"[a-z]*"') $(hostname) $MARK >> %s`, name, log)
		return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/usr/bin:/bin", "MARK=m"}}}
	}
	inside := []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "cat > /dev/null; echo startContainer $(/bin/hostname) >> /log/log"}}}
	s.Mounts = append(s.Mounts, specs.Mount{Destination: "/log", Source: r.dir, Type: "bind", Options: []string{"rbind"}})
	s.Hooks = &specs.Hooks{
		//lint:ignore SA1019 prestart is deprecated, and used.
		Prestart: hook("prestart"), CreateRuntime: hook("createRuntime"), CreateContainer: hook("createContainer"),
		StartContainer: inside, Poststart: hook("poststart"), Poststop: hook("poststop"),
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.wait()
	if err := b.Delete(context.Background(), false); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	want := []string{
		`prestart "status":"created" ` + host + " m",
		`createRuntime "status":"created" ` + host + " m",
		`createContainer "status":"created" ` + host + " m",
		"startContainer box",
		"program",
		`poststart "status":"running" ` + host + " m",
		`poststop "status":"stopped" ` + host + " m",
	}
	// The program and poststart run at the same time.
	if len(lines) == len(want) && strings.HasPrefix(lines[4], "poststart") {
		lines[4], lines[5] = lines[5], lines[4]
	}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("hooks said\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

func TestFailedHookLeavesNothing(t *testing.T) {
	r := newRig(t)
	for name, hooks := range map[string]*specs.Hooks{
		"createRuntime hook #0: run /bin/false: exit status 1":    {CreateRuntime: []specs.Hook{{Path: "/bin/false"}}},
		"createContainer hook #0: run /bin/sh: exit status 7: no": {CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "echo no; exit 7"}}}},
		"createRuntime hook #0: run /no/hook: step":               {CreateRuntime: []specs.Hook{{Path: "/no/hook"}}},
	} {
		s := dockerSpec(t, "true")
		s.Hooks = hooks
		if _, err := r.create(s); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v, want %q", err, name)
		}
	}
	second := 1
	s := dockerSpec(t, "true")
	s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &second}}}
	if _, err := r.create(s); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a hook without end: %v", err)
	}
}

func TestWhatIsWrongWithTheProgram(t *testing.T) {
	r := newRig(t)
	elfOf := func(machine byte) string {
		data, err := os.ReadFile("/bin/busybox")
		if err != nil {
			t.Fatal(err)
		}
		data[18] = machine
		return string(data)
	}
	for _, row := range []struct {
		name, program, content string
		mode                   os.FileMode
		text                   string
		kind                   func(error) bool
	}{
		{"not in PATH", "nope", "", 0, `exec: "nope": executable file not found in $PATH`, errdefs.IsNotFound},
		{"not there", "/nope", "", 0, `exec: "/nope": stat /nope: no such file or directory`, errdefs.IsNotFound},
		{"not executable", "/p", "x", 0o644, `exec: "/p": permission denied`, errdefs.IsPermissionDenied},
		{"a directory", "/etc", "", 0, `exec: "/etc": is a directory: permission denied`, errdefs.IsPermissionDenied},
		{"no format", "/p", "hello", 0o755, "exec /p: exec format error (the file is no ELF program and does not begin with #!)", errdefs.IsInvalidArgument},
		{"empty", "/p", "", 0o755, "exec /p: exec format error (the file is empty)", errdefs.IsInvalidArgument},
		{"another machine", "/p", elfOf(22), 0o755, "exec /p: exec format error (the file is for S390, this machine is " + machineName(elfMachine) + ")", errdefs.IsInvalidArgument},
		{"no interpreter", "/p", "#!/no/interp -x\n", 0o755, "exec /p: no such file or directory (its interpreter /no/interp is not there)", errdefs.IsNotFound},
		{"an interpreter with a return", "/p", "#!/bin/sh\r\n", 0o755, `exec /p: no such file or directory (its interpreter "/bin/sh\r" is not there)`, errdefs.IsNotFound},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := dockerSpec(t, row.program)
			_, _, err := r.run(s, func(o *CreateOptions) {
				if row.mode != 0 {
					if err := os.WriteFile(filepath.Join(o.Bundle, "rootfs", row.program), []byte(row.content), row.mode); err != nil {
						t.Fatal(err)
					}
				}
			})
			if err == nil || !strings.HasPrefix(err.Error(), row.text) || !row.kind(err) {
				t.Errorf("%v, want %q", err, row.text)
			}
		})
	}
}

func TestFiftyInARowLeaveNothing(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "true")
	fds := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	bundle := r.bundle(s)
	var before int
	for i := range 50 {
		c, err := Create(context.Background(), CreateOptions{ID: "gt-run-many", Bundle: bundle, Root: r.root})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := Wait(c.PidFD); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.Delete(context.Background(), false), c.Close()); err != nil {
			t.Fatal(err)
		}
		if c.group.Exists() {
			t.Fatal("cgroups are left")
		}
		if i == 0 {
			before = fds()
		}
	}
	if after := fds(); after != before {
		t.Errorf("%d descriptors after the first, %d after the last", before, after)
	}
}

func TestTinyMemory(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "echo", "small")
	limit := int64(6 << 20)
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	r.prints("small", s)
}

func TestLimits(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sleep", "100")
	limit, pids, shares := int64(64<<20), int64(20), uint64(512)
	quota, period := int64(50000), uint64(100000)
	s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
	s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
	s.Linux.Resources.CPU = &specs.LinuxCPU{Shares: &shares, Quota: &quota, Period: &period, Cpus: "0"}
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	st, err := b.Stats()
	if err != nil {
		t.Fatal(err)
	}
	if st.Memory.Usage.Limit != uint64(limit) || st.Pids.Limit != 20 || st.Pids.Current != 1 || st.CPU.Usage.Total == 0 || len(st.CPUSet.CPUs) != 1 {
		t.Errorf("stats are %+v", st)
	}
	for _, to := range []int64{256 << 20, 32 << 20} { // up and down again
		if err := b.Update(&specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &to, Swap: &to}}); err != nil {
			t.Fatal(err)
		}
		if st, err = b.Stats(); err != nil || st.Memory.Usage.Limit != uint64(to) {
			t.Errorf("limit is %d, want %d, %v", st.Memory.Usage.Limit, to, err)
		}
	}
	oom, err := b.OOM()
	if err != nil {
		t.Fatal(err)
	}
	defer oom.Close()
	_, ws, err := b.exec(process(s, "dd", "if=/dev/zero", "of=/dev/null", "bs=60M", "count=1"))
	if err != nil || ws.Signal() != unix.SIGKILL {
		t.Errorf("a glutton ended with %v, %v", ws, err)
	}
	oom.SetReadDeadline(time.Now().Add(60 * time.Second))
	if _, err := oom.Read(make([]byte, unix.SizeofInotifyEvent+unix.NAME_MAX+1)); err != nil { // an eventfd takes any more than 8
		t.Errorf("OOM is not told: %v", err)
	}
}

// A hostile image cannot lead a mount, a mask or the working directory out of
// its rootfs.
func TestHostileRootfs(t *testing.T) {
	for _, row := range []struct {
		name   string
		set    func(rootfs string) error
		change func(s *specs.Spec)
		script string
		want   string // of the output, or
		err    string // of Create
	}{
		{
			name: "/proc is a link (CVE-2019-19921, CVE-2023-27561)",
			set: func(dir string) error {
				return errors.Join(os.Remove(dir+"/proc"), os.Mkdir(dir+"/fake", 0o755), os.Symlink("/fake", dir+"/proc"))
			},
			err: "mount proc on /proc",
		},
		{
			name: "/proc is a link, and bound (CVE-2023-28642)",
			set: func(dir string) error {
				return errors.Join(os.Remove(dir+"/proc"), os.Mkdir(dir+"/fake", 0o755), os.Symlink("/fake", dir+"/proc"))
			},
			change: func(s *specs.Spec) {
				s.Mounts[0] = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"rbind"}}
			},
			err: "mount /proc on /proc",
		},
		{
			name: "/sys is a link, and bound (CVE-2023-28642)",
			set: func(dir string) error {
				return errors.Join(os.Remove(dir+"/sys"), os.Symlink("/tmp", dir+"/sys"))
			},
			change: func(s *specs.Spec) {
				s.Mounts[3] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"rbind", "ro"}}
			},
			err: "mount /sys on /sys",
		},
		{
			name: "/sys is a link",
			set: func(dir string) error {
				return errors.Join(os.Remove(dir+"/sys"), os.Symlink("/tmp", dir+"/sys"))
			},
			err: "mount sysfs on /sys",
		},
		{
			name: "a destination leads to the host (CVE-2021-30465)",
			set:  func(dir string) error { return os.Symlink("/../../../../tmp", dir+"/out") },
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/out", Type: "tmpfs", Source: "tmpfs"})
			},
			script: "grep -c ' /tmp ' /proc/self/mountinfo", want: "1",
		},
		{
			name:   "the working directory is a descriptor (CVE-2024-21626)",
			change: func(s *specs.Spec) { s.Process.Cwd = "/proc/self/fd/7" },
			err:    "working directory",
		},
		{
			name:   "the working directory leads to a descriptor",
			set:    func(dir string) error { return os.Symlink("/proc/self/fd/7", dir+"/cwd") },
			change: func(s *specs.Spec) { s.Process.Cwd = "/cwd" },
			err:    "working directory",
		},
		{
			name: "/dev/null is a link (CVE-2025-31133)",
			set: func(dir string) error {
				return os.WriteFile(dir+"/dev/null", []byte("fake"), 0o666)
			},
			change: func(s *specs.Spec) { s.Mounts = append(s.Mounts[:1], s.Mounts[3:]...) }, // no tmpfs on /dev
			script: "cat /proc/keys | wc -c", want: "0",
		},
		{
			name: "/dev is a link, and devices are made in the rootfs alone (CVE-2026-41579)",
			set: func(dir string) error {
				return errors.Join(os.Remove(dir+"/dev"), os.Symlink("/../../../../../../tmp/gt-run-escape", dir+"/dev"))
			},
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts[:1], s.Mounts[3:]...) // no tmpfs on /dev
				s.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/mine", Type: "c", Major: 1, Minor: 3}}
			},
			script: "ls /tmp/gt-run-escape | grep -c -x -E 'null|mine|fd|shm'", want: "4",
		},
		{
			name: "/dev is a link, and mounted on",
			set: func(dir string) error {
				return errors.Join(os.Remove(dir+"/dev"), os.Symlink("/../../../../../../tmp/gt-run-escape", dir+"/dev"))
			},
			script: "grep -c ' /tmp/gt-run-escape ' /proc/self/mountinfo", want: "1",
		},
		{
			name: "directories are made in the rootfs alone (CVE-2024-45310)",
			set:  func(dir string) error { return os.Symlink("/../../../../../../tmp/gt-run-escape", dir+"/mnt") },
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mnt/a/b", Type: "tmpfs", Source: "tmpfs"})
			},
			script: "grep -c ' /tmp/gt-run-escape/a/b ' /proc/self/mountinfo", want: "1",
		},
		{
			name: "a mount over procfs's files (CVE-2025-52881)",
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/sys/kernel", Type: "tmpfs", Source: "tmpfs"})
			},
			err: "lies inside /proc",
		},
		{
			name: "a mount over procfs by a link",
			set:  func(dir string) error { return os.Symlink("/proc/sys/net", dir+"/net") },
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/net", Type: "tmpfs", Source: "tmpfs"})
			},
			err: "lies inside /proc",
		},
		{
			name: "a sysctl is not written to what covers procfs (CVE-2025-52881)",
			set: func(dir string) error {
				return errors.Join(os.MkdirAll(dir+"/proc/sys/net/ipv4", 0o755), os.Symlink("/proc/sys/net", dir+"/net"))
			},
			change: func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/net", Type: "tmpfs", Source: "tmpfs"})
				s.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
			},
			err: "set sysctl net.ipv4.ip_forward",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			s := dockerSpec(t, "sh", "-c", row.script)
			if row.change != nil {
				row.change(s)
			}
			out, _, err := r.run(s, func(o *CreateOptions) {
				if row.set == nil {
					return
				}
				if err := row.set(filepath.Join(o.Bundle, "rootfs")); err != nil {
					t.Fatal(err)
				}
			})
			if row.err != "" {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Errorf("%v, want %q", err, row.err)
				}
				return
			}
			if err != nil || strings.TrimSpace(out) != row.want {
				t.Errorf("printed %q, want %q, %v", out, row.want, err)
			}
			if _, err := os.Lstat("/tmp/gt-run-escape"); err == nil {
				t.Error("it was made on the host")
			}
		})
	}
}
