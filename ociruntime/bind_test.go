package ociruntime

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What an earlier mount brings into the rootfs can be the source of a later one,
// told by its path on the host: callers of runc rely on the order.
func TestASourceThatAnEarlierMountBrings(t *testing.T) {
	ids := func(container, host uint32) []specs.LinuxIDMapping {
		return []specs.LinuxIDMapping{{ContainerID: container, HostID: host, Size: 65536}}
	}
	for _, row := range []struct {
		name   string
		change func(s *specs.Spec, brought, later *specs.Mount)
		script string
		want   string
	}{
		{"a directory", nil, "cat /var/sub/file", "below"},
		{"in a user namespace", func(s *specs.Spec, _, _ *specs.Mount) { withUserNamespace(s) }, "cat /var/sub/file", "below"},
		{"its ids are mapped", func(_ *specs.Spec, _, later *specs.Mount) {
			later.UIDMappings, later.GIDMappings = ids(0, 70000), ids(0, 80000)
		}, "stat -c %u:%g /var/file; cat /var/sub/file", "70000:80000\nbelow"},
		{"and in a user namespace, by who may", func(s *specs.Spec, _, later *specs.Mount) {
			withUserNamespace(s)
			later.UIDMappings, later.GIDMappings = s.Linux.UIDMappings, s.Linux.GIDMappings
		}, "stat -c %u:%g /var/file", "0:0"},
		{"a file", func(_ *specs.Spec, _, later *specs.Mount) {
			later.Source, later.Destination = later.Source+"/file", "/new/file"
		}, "cat /new/file", "top"},
		{"a tmpfs", func(_ *specs.Spec, brought, _ *specs.Mount) {
			*brought = specs.Mount{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=1711"}}
		}, "stat -c %a /var", "1711"},
		{"its links lead nowhere but into the rootfs", func(_ *specs.Spec, _, later *specs.Mount) { later.Source += "/out" }, "cat /var/passwd | wc -l", "2"},
		{"a destination by its path on the host", func(_ *specs.Spec, _, later *specs.Mount) {
			later.Destination = filepath.Dir(later.Source) + "/final"
		}, "cat /final/file", "top"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			if onTmpfs(t, r.dir) {
				needsLinux(t, 6, 3, "id-mapped mounts of a tmpfs")
			}
			dir := filepath.Join(r.dir, "dir")
			if err := errors.Join(
				os.MkdirAll(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "file"), []byte("top\n"), 0o644),
				os.WriteFile(filepath.Join(dir, "sub/file"), []byte("below\n"), 0o644), os.Symlink("/etc", filepath.Join(dir, "out")),
			); err != nil {
				t.Fatal(err)
			}
			s := dockerSpec(t, "sh", "-c", row.script)
			r.prints(row.want, s, func(o *CreateOptions) {
				brought := specs.Mount{Destination: "/tmp", Type: "bind", Source: dir, Options: []string{"rbind"}}
				later := specs.Mount{Destination: "/var", Type: "bind", Source: filepath.Join(o.Bundle, "rootfs/tmp"), Options: []string{"rbind"}}
				if row.change != nil {
					row.change(s, &brought, &later)
				}
				s.Mounts = append(s.Mounts, brought, later)
				o.Spec = s
			})
		})
	}
}

// Options of crun's for symlinks, of which podman uses copy-symlink (no-dereference).
func TestSymlinksAtTheEndsOfABindMount(t *testing.T) {
	for _, row := range []struct {
		name, options, source, script, want string
	}{
		{"followed", "bind", "link", "cat /var/at", "host"},
		{"made again", "bind,copy-symlink", "link", "readlink /var/at", "file"},
		{"no link to make again", "bind,copy-symlink", "file", "cat /var/at", "host"},
		{"mounted itself", "bind,src-nofollow", "link", "readlink /var/at", "file"},
		{"mounted on", "bind,dest-nofollow", "file", "cat /bin/ls; readlink /bin/cat", "host\nbusybox"},
		{"the link is there already", "bind,copy-symlink", "same", "readlink /bin/tail", "busybox"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRig(t)
			dir := filepath.Join(r.dir, "dir")
			if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "file"), []byte("host\n"), 0o644),
				os.Symlink("file", filepath.Join(dir, "link")), os.Symlink("busybox", filepath.Join(dir, "same"))); err != nil {
				t.Fatal(err)
			}
			s := dockerSpec(t, "sh", "-c", row.script)
			dest := "/var/at"
			switch {
			case row.source == "same":
				dest = "/bin/tail"
			case strings.Contains(row.options, "dest-"):
				dest = "/bin/ls"
			}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: filepath.Join(dir, row.source), Options: strings.Split(row.options, ",")})
			r.prints(row.want, s)
		})
	}
	t.Run("something else is there", func(t *testing.T) {
		r := newRig(t)
		link := filepath.Join(r.dir, "link")
		if err := os.Symlink("elsewhere", link); err != nil {
			t.Fatal(err)
		}
		s := dockerSpec(t, "true")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/bin/tail", Type: "bind", Source: link, Options: []string{"bind", "copy-symlink"}})
		if _, _, err := r.run(s); !errors.Is(err, unix.EEXIST) || !strings.Contains(err.Error(), "on /bin/tail: symlinkat") {
			t.Errorf("%v", err)
		}
	})
}
