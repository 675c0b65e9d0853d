// Init is process 1 of the test machine: it mounts what a system has, loads
// the modules that /modules lists, runs the jobs of /jobs and powers off.
//
// Where the machine has a disk, it only goes over to it: process 1 is the disk's
// systemd then, and a service runs this program once more, to run the jobs.
//
// A job is a line "NAME DIRECTORY COMMAND…"; how it ended is told on the console
// as "VM-JOB NAME CODE".
package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// jobTime bounds one job: the machine is slow, but it must end.
const jobTime = 8 * time.Minute

func main() {
	if os.Getpid() != 1 {
		if err := runJobs(); err != nil {
			fmt.Println("VM-BOOT", err)
		}
		return // the service says that the machine powers off
	}
	start := boot
	if _, err := os.Stat("/disk"); err == nil {
		start = bootDisk
	}
	if err := start(); err != nil {
		fmt.Println("VM-BOOT", err)
	}
	// With process 1 gone the kernel would panic; it is told to go first.
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func boot() error {
	if err := leaveInitramfs(); err != nil {
		return err
	}
	for _, m := range []struct{ kind, dir, options string }{
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "ptmxmode=666"},
		{"tmpfs", "/dev/shm", "mode=1777"},
		{"tmpfs", "/run", "mode=755"},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/var", "mode=755"},
		{"cgroup2", "/sys/fs/cgroup", ""},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	os.Setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin")
	os.Setenv("HOME", "/root")
	if err := loadModules(); err != nil {
		return err
	}
	for _, link := range [][2]string{{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"}, {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"}} {
		if err := os.Symlink(link[0], link[1]); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("set lo up: %w: %s", err, out)
	}
	return runJobs()
}

// bootDisk moves to the disk, with all that is in /disk, and becomes its systemd.
func bootDisk() error {
	if err := loadModules(); err != nil {
		return err
	}
	const disk, root = "/dev/vda", "/root-of-the-machine"
	if err := unix.Mount("devtmpfs", "/dev", "devtmpfs", 0, ""); err != nil {
		return fmt.Errorf("mount /dev: %w", err)
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	err := unix.Mount(disk, root, "ext4", 0, "")
	for range 100 {
		if !errors.Is(err, unix.ENOENT) {
			break
		}
		time.Sleep(50 * time.Millisecond) // the driver looks for disks in its own time
		err = unix.Mount(disk, root, "ext4", 0, "")
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", disk, err)
	}
	if out, err := exec.Command("/bin/busybox", "cp", "-a", "/disk/.", "/src", "/jobs", "/init", root).CombinedOutput(); err != nil {
		return fmt.Errorf("copy to the disk: %w: %s", err, out)
	}
	if err := unix.Mount("/dev", root+"/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move /dev: %w", err)
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(root, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	const systemd = "/lib/systemd/systemd"
	return unix.Exec(systemd, []string{systemd}, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
}

// leaveInitramfs moves to a tmpfs: the initramfs itself cannot be pivoted away
// from (pivot_root(2), EINVAL), so no container could be made on it.
func leaveInitramfs() error {
	const root = "/root-of-the-machine"
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=755,size=90%"); err != nil {
		return fmt.Errorf("mount %s: %w", root, err)
	}
	for _, e := range entries {
		if e.Name() == "dev" {
			continue // devtmpfs comes in its place
		}
		mv := exec.Command("/bin/busybox", "mv", "/"+e.Name(), root+"/")
		mv.Stdin, mv.Stdout, mv.Stderr = os.Stdin, os.Stdout, os.Stdout // there is no /dev/null yet
		if err := mv.Run(); err != nil {
			return fmt.Errorf("move /%s: %w", e.Name(), err)
		}
		if e.Name() == "bin" {
			if err := os.Symlink(root+"/bin", "/bin"); err != nil {
				return err
			}
		}
	}
	if err := unix.Chdir(root); err != nil {
		return err
	}
	if err := unix.Mount(root, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	return unix.Chroot(".")
}

func loadModules() error {
	list, err := os.ReadFile("/modules")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

func runJobs() error {
	f, err := os.Open("/jobs")
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		fmt.Println("VM-JOB", words[0], run(words[1], words[2:]))
	}
	return lines.Err()
}

// run runs one command. Orphans become our children: they are left to the kernel,
// for this machine does not live long.
func run(dir string, argv []string) int {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return -1
	}
	stop := time.AfterFunc(jobTime, func() { unix.Kill(-cmd.Process.Pid, unix.SIGKILL) })
	defer stop.Stop()
	if err := cmd.Wait(); err != nil {
		fmt.Println(err)
	}
	return cmd.ProcessState.ExitCode()
}
