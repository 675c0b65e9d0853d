package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kernel is Debian's cloud kernel, with busybox-static of the same architecture.
type kernel struct {
	image   string // for qemu -kernel
	modules string // lib/modules/VERSION
	busybox string
}

// findKernel unpacks the packages below cache, once; they are not installed.
func findKernel(cache string, a arch) (kernel, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, err
	}
	dir := filepath.Join(cache, "kernel-"+a.name)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := fetchKernel(cache, dir, a); err != nil {
			return kernel{}, err
		}
	}
	images, err := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return kernel{}, fmt.Errorf("find a kernel in %s: have %v %w", dir, images, err)
	}
	version := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return kernel{images[0], filepath.Join(dir, "lib/modules", version), filepath.Join(dir, "bin/busybox")}, nil
}

// fetchKernel has apt work in directories of its own: this machine's apt need
// not know the architecture.
func fetchKernel(cache, dir string, a arch) (err error) {
	tmp, err := os.MkdirTemp(cache, "fetch")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	const script = `
set -e
mkdir -p lists/partial cache/archives/partial
cat >apt.conf <<END
APT::Architecture "$1";
APT::Architectures "$1";
APT::Sandbox::User "root";
Dir::State "$PWD";
Dir::State::status "/dev/null";
Dir::Cache "$PWD/cache";
END
export APT_CONFIG=$PWD/apt.conf
apt-get update -q
apt-get download -q busybox-static $(apt-cache depends linux-image-cloud-$1 | awk '/Depends: linux-image/ {print $2}')
for deb in *.deb; do dpkg-deb -x $deb root; done
`
	cmd := exec.Command("sh", "-c", script, "sh", a.name)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch the kernel for %s: %w: %s", a.name, err, out)
	}
	return os.Rename(filepath.Join(tmp, "root"), dir)
}

// load is the order in which the modules that names need are to be loaded: a
// module after those that it depends on (the "depends" of modinfo(8)).
func (k kernel) load(names ...string) ([]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(k.modules, func(p string, _ os.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(p), ".ko"); ok {
			files[strings.ReplaceAll(name, "-", "_")] = p
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var order []string
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		if seen[name] || name == "" {
			return nil
		}
		seen[name] = true
		file, ok := files[name]
		if !ok {
			return fmt.Errorf("kernel module %s is not in %s", name, k.modules)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for entry := range strings.SplitSeq(string(data), "\x00") {
			if deps, ok := strings.CutPrefix(entry, "depends="); ok {
				for dep := range strings.SplitSeq(deps, ",") {
					if err := add(strings.ReplaceAll(dep, "-", "_")); err != nil {
						return err
					}
				}
			}
		}
		order = append(order, file)
		return nil
	}
	for _, n := range names {
		if err := add(n); err != nil {
			return nil, err
		}
	}
	return order, nil
}
