package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/mount"
)

// Mount makes the content of a volume visible at the path that it gives, for the
// user id. Only a volume with options has something to mount: it stays mounted
// until its last user unmounts it. A user counts once. Errors: NotFound.
func (s *Store) Mount(name, id string) (path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.read(name)
	if err != nil || v.Options["device"] == "" {
		return v.Path, err
	}
	dir := filepath.Join(s.state, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("mount volume %s: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(dir, id), nil, 0o600); err != nil {
		return "", fmt.Errorf("mount volume %s: %w", name, err)
	}
	mounted, err := isMount(v.Path)
	if err == nil && !mounted {
		err = v.mount()
	}
	if err != nil {
		return "", fmt.Errorf("mount volume %s: %w", name, errors.Join(err, s.release(name, id)))
	}
	return v.Path, nil
}

func (v Volume) mount() error {
	m := mount.Mount{Type: v.Options["type"], Source: v.Options["device"]}
	if o := v.Options["o"]; o != "" {
		m.Options = strings.Split(o, ",")
	}
	if strings.HasPrefix(m.Type, "nfs") || m.Type == "cifs" {
		// The kernel wants the server's address, mount(8) would look up the name.
		for i, o := range m.Options {
			host, ok := strings.CutPrefix(o, "addr=")
			if !ok || net.ParseIP(host) != nil {
				continue
			}
			addr, err := net.ResolveIPAddr("ip", host)
			if err != nil {
				return fmt.Errorf("resolve address for %s: %w", host, err)
			}
			m.Options[i] = "addr=" + addr.String()
		}
	}
	return m.Mount(v.Path)
}

// Unmount ends the use of id. A use that is not there is no error.
func (s *Store) Unmount(name, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.read(name)
	if err != nil || v.Options["device"] == "" {
		return err
	}
	if err := s.release(name, id); err != nil {
		return fmt.Errorf("unmount volume %s: %w", name, err)
	}
	if len(s.users(name)) > 0 {
		return nil
	}
	if mounted, err := isMount(v.Path); err != nil || !mounted {
		return err
	}
	return mount.Unmount(v.Path)
}

func (s *Store) release(name, id string) error {
	err := os.Remove(filepath.Join(s.state, name, id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// users are those who have the volume mounted.
func (s *Store) users(name string) []string {
	entries, err := os.ReadDir(filepath.Join(s.state, name))
	if err != nil {
		return nil
	}
	var ids []string
	for _, e := range entries {
		ids = append(ids, e.Name())
	}
	return ids
}

// isMount says whether something is mounted on path (STATX_ATTR_MOUNT_ROOT,
// Linux 5.8).
func isMount(path string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, 0, &st); err != nil {
		return false, fmt.Errorf("statx %s: %w", path, err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
}
