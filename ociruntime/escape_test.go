package ociruntime

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mighty gives the container every capability and takes its filter: what an
// attacker has who is root in a privileged container, with namespaces left.
func mighty(s *specs.Spec) {
	all := capNames
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	s.Linux.Seccomp = nil
}

// A container that is created shows its first process to whoever enters its pid
// namespace. What that process executes is none of the host's programs, and can
// be written by nobody (CVE-2019-5736).
func TestTheRuntimeCannotBeWrittenFromInside(t *testing.T) {
	r := newRig(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before := digest(t, self)
	s := dockerSpec(t, "sleep", "100")
	mighty(s)
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	attack := `readlink /proc/1/exe; (echo evil > /proc/1/exe) 2>&1 | grep -c -i 'busy\|permitted\|denied'
		exec 3< /proc/1/exe && (echo evil >> /proc/self/fd/3) 2>&1 | grep -c -i 'busy\|permitted\|denied'
		grep -c -v 'gantry-plan\|\[.*\]' /proc/1/maps`
	out, _, err := b.exec(process(s, "sh", "-c", attack))
	if want := "/memfd:gantry-plan (deleted)\n1\n1\n"; err != nil || !strings.HasPrefix(out, want) {
		t.Errorf("of the waiting process the attacker saw %q, want %q, %v", out, want, err)
	}
	if lines := strings.Split(out, "\n"); lines[len(lines)-1] != "0" {
		t.Errorf("%s pieces of other memory than the plan's are mapped in it", lines[len(lines)-1])
	}
	if digest(t, self) != before {
		t.Fatal("the program was written")
	}
}

// The same race against an exec: a program whose interpreter is /proc/self/exe
// has the kernel execute what the runtime was, under the attacker's eyes.
func TestTheRuntimeCannotBeWrittenByExec(t *testing.T) {
	r := newRig(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	before := digest(t, self)
	attack := `cd /proc; while :; do for p in [0-9]*; do
		exe=$(readlink $p/exe) || continue
		case $exe in /bin/busybox) ;; *memfd:gantry-plan*) echo SEEN; (echo evil >> $p/exe) 2>/dev/null && echo WRITTEN;; *) echo FOUND $exe;; esac
	done; done`
	s := dockerSpec(t, "sh", "-c", attack)
	mighty(s)
	b, err := r.create(s, func(o *CreateOptions) {
		if err := os.WriteFile(filepath.Join(o.Bundle, "rootfs/bin/evil"), []byte("#!/proc/self/exe\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i := 0; i < 20 || i < 1000 && !strings.Contains(b.output(), "SEEN"); i++ {
		if _, ws, err := b.exec(process(s, "/bin/evil")); err == nil && ws.ExitStatus() == 0 {
			t.Error("the plan ran a second time, inside")
		}
		if out, _, err := b.exec(process(s, "true")); err != nil {
			t.Errorf("%s, %v", out, err)
		}
	}
	if out := b.output(); strings.Trim(out, "SEN\n") != "" || out == "" {
		t.Errorf("the attacker says %q", out)
	}
	if digest(t, self) != before {
		t.Fatal("the program was written")
	}
}

func digest(t *testing.T, file string) [sha256.Size]byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(data)
}

// No descriptor of the runtime's leads out of the container (CVE-2024-21626).
func TestAnExecCannotBeginInADescriptor(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sleep", "100")
	b, err := r.create(s, func(o *CreateOptions) {
		if err := os.Symlink("/proc/self/fd/7", filepath.Join(o.Bundle, "rootfs/seven")); err != nil {
			t.Fatal(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	dirs := []string{"/seven", "/proc/self/cwd", "/proc/1/root", "/proc/self/fd/../fd/7"}
	for fd := range 32 {
		dirs = append(dirs, fmt.Sprintf("/proc/self/fd/%d", fd), fmt.Sprintf("/proc/thread-self/fd/%d/..", fd))
	}
	for _, dir := range dirs {
		p := process(s, "pwd")
		p.Cwd = dir
		if out, _, err := b.exec(p); err == nil || !strings.Contains(err.Error(), "chdir to cwd") {
			t.Errorf("in %s: %q, %v", dir, out, err)
		}
	}
}

// An exec has the capabilities that are asked for, and none that it could pass
// on to files of the image (CVE-2022-29162, CVE-2022-27650).
func TestAnExecInheritsNoCapability(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sleep", "100")
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	for _, uid := range []uint32{0, 1000} {
		p := process(s, "grep", "Cap[IA]", "/proc/self/status")
		p.User.UID = uid
		if out, _, err := b.exec(p); err != nil || out != "CapInh:\t0000000000000000\nCapAmb:\t0000000000000000" {
			t.Errorf("user %d: %q, %v", uid, out, err)
		}
	}
}

// A terminal is the one that was just made, whatever the image put in its
// place (CVE-2025-52565).
func TestHostileTerminals(t *testing.T) {
	for _, row := range []struct {
		name string
		set  func(rootfs string) error
		ptys bool   // a devpts is mounted
		want string // of the output, or
		err  string // of Create
	}{
		{
			name: "/dev/console is a link to procfs", ptys: true,
			set:  func(dir string) error { return os.Symlink("/proc/sysrq-trigger", dir+"/dev/console") },
			want: "0",
		},
		{
			name: "/dev/console is a link to a directory above", ptys: true,
			set:  func(dir string) error { return os.Symlink("../../../../dev/null", dir+"/dev/console") },
			want: "0",
		},
		{
			name: "the multiplexer is a link",
			set: func(dir string) error {
				return errors.Join(os.Mkdir(dir+"/dev/pts", 0o755), os.Symlink("/proc/self/fd/0", dir+"/dev/pts/ptmx"))
			},
			err: "open a terminal",
		},
		{
			name: "the multiplexer is another device",
			set: func(dir string) error {
				return errors.Join(os.Mkdir(dir+"/dev/pts", 0o755), unix.Mknod(dir+"/dev/pts/ptmx", unix.S_IFCHR|0o666, nullDevice))
			},
			err: "open a terminal /dev/pts/ptmx: ioctl",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			s := dockerSpec(t, "sh", "-c", "grep -c 'sysrq\\|/dev/null ' /proc/self/mountinfo")
			s.Process.Terminal = true
			s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
			mounts := s.Mounts[:1:1] // no tmpfs on /dev
			if row.ptys {
				mounts = append(mounts, s.Mounts[2])
			}
			s.Mounts = mounts
			b, err := r.create(s, func(o *CreateOptions) {
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
			if err != nil {
				t.Fatal(err)
			}
			defer b.Console.Close()
			if err := b.Start(context.Background()); err != nil {
				t.Fatal(err)
			}
			b.wait()
			b.Console.SetReadDeadline(time.Now().Add(60 * time.Second))
			buf := make([]byte, 4096)
			n, _ := b.Console.Read(buf)
			if got := strings.TrimSpace(string(buf[:n])); got != row.want {
				t.Errorf("%q, want %q", got, row.want)
			}
			if err := b.Delete(context.Background(), false); err != nil {
				t.Error(err)
			}
		})
	}
}

// What covers masked paths must be the null device, and what labels are written
// to a procfs, or nothing is started (CVE-2025-31133, CVE-2025-52881).
func TestWhatIsOpenedIsVerified(t *testing.T) {
	for want, f := range map[string]File{
		"mask for files: /dev/zero is not character device 1:3": {Name: "mask for files", Call: "open_tree", Path: "/dev/zero", Flags: treeFlags, Device: nullDevice},
		"mask for files: /etc/passwd is not character device":   {Name: "mask for files", Call: "open_tree", Path: "/etc/passwd", Flags: treeFlags, Device: nullDevice},
		"procfs: /dev is of another filesystem":                 {Name: "procfs", Call: "open", Path: "/dev", Flags: unix.O_PATH, Magic: unix.PROC_SUPER_MAGIC},
	} {
		if fd, err := f.open(""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		} else if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			t.Errorf("descriptor %d is left open", fd)
		}
	}
	for _, f := range []File{
		{Name: "mask for files", Call: "open_tree", Path: "/dev/null", Flags: treeFlags, Device: nullDevice},
		{Name: "procfs", Call: "open", Path: "/proc", Flags: unix.O_PATH, Magic: unix.PROC_SUPER_MAGIC},
	} {
		fd, err := f.open("")
		if err != nil {
			t.Error(err)
		}
		unix.Close(fd)
	}
}
