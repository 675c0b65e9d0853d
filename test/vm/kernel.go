package vm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// kernel is Debian's cloud kernel, unpacked below dir.
type kernel struct {
	image   string // for qemu -kernel
	modules string // lib/modules/VERSION
}

// findKernel unpacks the kernel's package below cache, once; it is not installed.
func findKernel(cache string) (kernel, error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, err
	}
	dir := filepath.Join(cache, "kernel")
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := fetchKernel(cache, dir); err != nil {
			return kernel{}, err
		}
	}
	images, err := filepath.Glob(filepath.Join(dir, "boot/vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return kernel{}, fmt.Errorf("find a kernel in %s: have %v %w", dir, images, err)
	}
	version := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return kernel{image: images[0], modules: filepath.Join(dir, "lib/modules", version)}, nil
}

func fetchKernel(cache, dir string) (err error) {
	tmp, err := os.MkdirTemp(cache, "fetch")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	const script = `
set -e
package=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2}')
if [ -z "$package" ] || ! apt-get download -q "$package"; then
	apt-get update -q
	package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2}')
	apt-get download -q "$package"
fi
dpkg-deb -x linux-image-*.deb root
`
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("fetch the kernel's package: %w: %s", err, out)
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
