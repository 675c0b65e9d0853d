package vm

import (
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// packages are what the disk has beside the essential ones.
var packages = []string{"systemd", "dbus", "dbus-user-session", "libpam-systemd", "uidmap", "criu", "iproute2", "iptables", "busybox-static", "apparmor"}

//go:embed disk.go
var recipe []byte

// findDisk is the image of a disk with Debian and its systemd, made once for
// each version of this file. A machine writes on a copy that it forgets.
func findDisk(cache string) (image string, err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	image = filepath.Join(cache, fmt.Sprintf("disk-%.6x", sha256.Sum256(recipe)))
	if _, err := os.Stat(image); !errors.Is(err, os.ErrNotExist) {
		return image, err
	}
	tmp, err := os.MkdirTemp(cache, "disk")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	root, made := filepath.Join(tmp, "root"), filepath.Join(tmp, "image")
	for _, cmd := range []*exec.Cmd{
		exec.Command("mmdebstrap", "--variant=essential", "--quiet", "--include="+strings.Join(packages, ","),
			"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
			"bookworm", root),
		exec.Command("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", root, made, "1G"),
	} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("make the disk: %s: %w: %s", cmd.Args[0], err, out)
		}
	}
	return image, os.Rename(made, image)
}
