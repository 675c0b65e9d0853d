package vm

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

// bootTime bounds the life of a machine.
const bootTime = 15 * time.Minute

// modules are what containers need of the kernel that it does not have built in.
var modules = []string{
	"overlay", "veth", "bridge", "br_netfilter", "tun",
	"virtio_pci", "virtio_blk", "unix_diag", "inet_diag", "tcp_diag", "udp_diag", "af_packet_diag", "netlink_diag",
	"nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_ct", "nft_redir", "nft_fib_inet", "nft_reject_inet", "nft_compat", "nf_conntrack_netlink",
}

// job is one command in the machine.
type job struct {
	name    string
	dir     string
	command string
}

// machine is a test machine that is being put together.
type machine struct {
	t      *testing.T
	arch   arch
	kernel kernel
	out    *os.File
	zip    *gzip.Writer
	files  *archive
	jobs   []job
	disk   string // image of its disk, "" without
	layout string // of cgroups, as the kernel's command line says it
}

// cgroup2 is cgroup v2 alone, hybrid is systemd's use of v1 with its own groups
// on v2.
const (
	cgroup2 = "cgroup_no_v1=all"
	hybrid  = "systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=0"
)

func newMachine(t *testing.T) *machine {
	t.Helper()
	return newMachineOf(t, amd64)
}

func newMachineOf(t *testing.T, a arch) *machine {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	k, err := findKernel(filepath.Join(cache, "gantry-test-vm"), a)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(rig.Dir(t), "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	m := &machine{t: t, arch: a, kernel: k, out: out, layout: cgroup2}
	m.zip, err = gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	m.files = newArchive(m.zip)
	m.base()
	return m
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// base is what every machine has.
func (m *machine) base() {
	m.t.Helper()
	m.must(m.files.copy(m.kernel.busybox, "/bin/busybox"))
	for _, applet := range strings.Fields(rig.Must(m.t, exec.Command(rig.Peer(m.t, "busybox"), "--list"))) {
		if applet != "busybox" {
			m.files.symlink("busybox", "/bin/"+applet)
		}
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run", "/tmp", "/var", "/root", "/etc"} {
		m.files.dir(dir)
	}
	m.files.file("/etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644)
	m.files.file("/etc/group", []byte("root:x:0:\n"), 0o644)
	m.files.file("/etc/hosts", []byte("127.0.0.1 localhost\n"), 0o644)
	m.files.file("/etc/resolv.conf", []byte("nameserver 127.0.0.1\n"), 0o644)

	init := filepath.Join(rig.Dir(m.t), "init")
	m.compile("build", init, "./test/vm/init")
	m.must(m.files.copy(init, "/init"))

	files, err := m.kernel.load(modules...)
	m.must(err)
	var list strings.Builder
	for _, f := range files {
		name := path.Join("/lib/modules", filepath.Base(f))
		m.must(m.files.copy(f, name))
		fmt.Fprintln(&list, name)
	}
	m.files.file("/modules", []byte(list.String()), 0o644)
}

func (m *machine) compile(verb, out, pkg string) {
	m.t.Helper()
	root, err := rig.Root()
	m.must(err)
	args := []string{verb, "-o", out, pkg}
	if verb == "test" {
		args = []string{"test", "-c", "-o", out, pkg}
	}
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+m.arch.name)
	if out, err := cmd.CombinedOutput(); err != nil {
		m.t.Fatalf("compile %s: %v\n%s", pkg, err, out)
	}
}

// programs puts our programs into /bin.
func (m *machine) programs() {
	m.t.Helper()
	m.programsTo("/bin")
}

func (m *machine) programsTo(dir string) {
	m.t.Helper()
	for _, name := range []string{"gantry", "gantryd", "containerd-shim-gantry-v2", "gantry-runtime"} {
		program := filepath.Join(rig.Dir(m.t), name)
		m.compile("build", program, "./cmd/"+name)
		m.must(m.files.copy(program, path.Join(dir, name)))
	}
}

// tests runs the tests of a package in the machine.
func (m *machine) tests(pkg string, flags ...string) {
	m.t.Helper()
	root, err := rig.Root()
	m.must(err)
	name := strings.ReplaceAll(pkg, "/", "-")
	binary := filepath.Join(rig.Dir(m.t), name+".test")
	m.compile("test", binary, "./"+pkg)
	dir := "/src/" + pkg
	m.must(m.files.copy(binary, path.Join(dir, name+".test")))
	data := filepath.Join(root, pkg, "testdata")
	if _, err := os.Stat(data); err == nil {
		m.must(m.files.tree(data, path.Join(dir, "testdata")))
	}
	m.jobs = append(m.jobs, job{pkg, dir, strings.Join(append([]string{"./" + name + ".test", "-test.v"}, flags...), " ")})
}

// script runs a shell script of testdata in the machine.
func (m *machine) script(name string) {
	m.t.Helper()
	m.must(m.files.copy("testdata/lib.sh", "/src/lib.sh"))
	m.must(m.files.copy(filepath.Join("testdata", name), "/src/"+name))
	m.jobs = append(m.jobs, job{name, "/tmp", "sh /src/" + name})
}

var ended = regexp.MustCompile(`^VM-JOB (\S+) (-?\d+)`)

// boot runs the machine to its end, and fails for every job that did.
func (m *machine) boot() {
	m.t.Helper()
	var list strings.Builder
	for _, j := range m.jobs {
		fmt.Fprintln(&list, j.name, j.dir, j.command)
	}
	m.files.file("/jobs", []byte(list.String()), 0o644)
	m.must(m.files.close())
	m.must(m.zip.Close())

	args := append(m.arch.qemu[1:len(m.arch.qemu):len(m.arch.qemu)],
		"-m", "2048", "-smp", "2", "-nodefaults", "-no-reboot", "-nographic", "-serial", "stdio",
		"-kernel", m.kernel.image, "-initrd", m.out.Name(),
		"-append", "console="+m.arch.console+" quiet panic=-1 "+m.layout)
	if m.disk != "" {
		args = append(args, "-drive", "if=virtio,format=raw,snapshot=on,file="+m.disk)
	}
	cmd := exec.Command(rig.Peer(m.t, m.arch.qemu[0]), args...)
	console, err := cmd.StdoutPipe()
	m.must(err)
	cmd.Stderr = os.Stderr
	m.must(cmd.Start())
	stop := time.AfterFunc(bootTime, func() { cmd.Process.Kill() })
	defer stop.Stop()
	codes := m.read(console)
	if err := cmd.Wait(); err != nil {
		m.t.Errorf("qemu: %v", err)
	}
	for _, j := range m.jobs {
		if code, ok := codes[j.name]; !ok {
			m.t.Errorf("%s did not end", j.name)
		} else if code != "0" {
			m.t.Errorf("%s: exit code %s", j.name, code)
		}
	}
}

// read logs the console and collects how the jobs ended.
func (m *machine) read(console io.Reader) map[string]string {
	codes := map[string]string{}
	lines := bufio.NewScanner(console)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if f := ended.FindStringSubmatch(line); f != nil {
			codes[f[1]] = f[2]
		}
		m.t.Log(line)
	}
	return codes
}

func TestTheRuntimeOnCgroup2(t *testing.T) {
	m := newMachine(t)
	m.tests("ociruntime")
	m.boot()
}

func TestTheWholeChainOnCgroup2(t *testing.T) {
	m := newMachine(t)
	m.programs()
	m.image()
	m.script("whole.sh")
	m.boot()
}

// image puts the busybox image, as a tar that 'gantry load' reads, into the machine.
func (m *machine) image() {
	m.t.Helper()
	layout := rig.Busybox(m.t)
	if m.arch.name != runtime.GOARCH {
		layout = rig.BusyboxOf(m.t, m.arch.name, m.kernel.busybox)
	}
	file := filepath.Join(rig.Dir(m.t), "busybox.tar")
	rig.Must(m.t, exec.Command("skopeo", "copy", "-q", "oci:"+layout, "oci-archive:"+file+":busybox:latest"))
	m.must(m.files.copy(file, "/src/busybox.tar"))
}
