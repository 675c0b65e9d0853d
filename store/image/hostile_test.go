package image_test

import (
	"archive/tar"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/remote/registrytest"
	"github.com/gantryd/gantry/store/image"
)

// outside is a directory that no layer may reach, with a file that none may change.
func outside(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "victim"), []byte("safe"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("outside has %v, %v", entries, err)
		}
		wantFile(t, dir, "victim", "safe")
		fi, err := os.Stat(filepath.Join(dir, "victim"))
		if err != nil || fi.Mode() != 0o644 {
			t.Errorf("victim is %v, %v", fi, err)
		}
	})
	return dir
}

func TestLayersThatReachOutside(t *testing.T) {
	for _, tt := range []struct {
		name   string
		files  func(out string) []file
		refuse string // what the error says; "" is no error: the name means something inside
		inside string // this file then has the data "evil"
	}{
		{"a name with ..", func(out string) []file {
			return []file{{name: "../../../../../../../.." + out + "/x", data: "evil"}}
		}, "leads out", ""},
		{"an absolute name is inside", func(out string) []file {
			return []file{{name: out + "/x", data: "evil"}}
		}, "", "OUT/x"},
		{"through an absolute symbolic link", func(out string) []file {
			return []file{{name: "l", link: out}, {name: "l/x", data: "evil"}}
		}, "", "OUT/x"},
		{"through a relative symbolic link", func(out string) []file {
			return []file{{name: "a/"}, {name: "a/l", link: strings.Repeat("../", 30) + out}, {name: "a/l/x", data: "evil"}}
		}, "", "OUT/x"},
		{"onto a symbolic link", func(out string) []file {
			return []file{{name: "l", link: out + "/victim"}, {name: "l", data: "evil"}}
		}, "", "l"},
		{"a directory onto a symbolic link", func(out string) []file {
			return []file{{name: "l", link: out}, {name: "l/", mode: 0o777}, {name: "l/x", data: "evil"}}
		}, "", "l/x"},
		{"a hard link to what is outside", func(out string) []file {
			return []file{{name: "l", link: out + "/victim", kind: tar.TypeLink}, {name: "l", data: "evil"}}
		}, "hard link", ""},
		{"a hard link with ..", func(out string) []file {
			return []file{{name: "l", link: "../../../../../.." + out + "/victim", kind: tar.TypeLink}}
		}, "leads out", ""},
		{"a hard link through a symbolic link", func(out string) []file {
			return []file{{name: "s", link: out}, {name: "l", link: "s/victim", kind: tar.TypeLink}}
		}, "hard link", ""},
		{"a hard link to a symbolic link is that link", func(out string) []file {
			return []file{{name: "s", link: out + "/victim"}, {name: "l", link: "s", kind: tar.TypeLink}, {name: "l", data: "evil"}}
		}, "", "l"},
		{"a hard link to itself", func(string) []file {
			return []file{{name: "l", data: "x"}, {name: "l", link: "l", kind: tar.TypeLink}}
		}, "itself", ""},
		{"links in a circle", func(string) []file {
			return []file{{name: "a", link: "b"}, {name: "b", link: "a"}, {name: "a/x", data: "evil"}}
		}, "too many levels", ""},
		{"a link that is changed under way", func(out string) []file {
			return []file{{name: "d/"}, {name: "d/y", data: "y"}, {name: "d", link: out}, {name: "d/x", data: "evil"}}
		}, "", "OUT/x"},
		{"a whiteout with ..", func(out string) []file {
			return []file{{name: "a/../../../../../../.." + out + "/.wh.victim"}}
		}, "leads out", ""},
		{"a whiteout through a link", func(out string) []file {
			return []file{{name: "l", link: out}, {name: "l/.wh.victim"}, {name: "ok", data: "evil"}}
		}, "", "ok"},
		{"a whiteout of ..", func(string) []file { return []file{{name: "a/"}, {name: "a/.wh..."}} }, "whiteout", ""},
		{"an opaque mark through a link", func(out string) []file {
			return []file{{name: "l", link: out}, {name: "l/.wh..wh..opq"}, {name: "ok", data: "evil"}}
		}, "", "ok"},
		{"the root as a file", func(string) []file { return []file{{name: ".", data: "evil"}} }, "root", ""},
		{"overlayfs's own xattrs", func(out string) []file {
			return []file{{name: "d/", hdr: tar.Header{PAXRecords: map[string]string{
				"SCHILY.xattr.trusted.overlay.redirect": out, "SCHILY.xattr.trusted.overlay.opaque": "y",
			}}}, {name: "d/x", data: "evil"}}
		}, "", "d/x"},
	} {
		for _, upper := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s (upper layer %v)", tt.name, upper), func(t *testing.T) {
				out := outside(t)
				reg, s := registrytest.Start(t), stores(t, t.TempDir())
				layers := []blob{gzipLayer(t, tt.files(out)...)}
				if upper {
					layers = append([]blob{gzipLayer(t, file{name: "base", data: "base"})}, layers...)
				}
				serve(reg, "a", "1", layers...)
				img, err := pull(t, s, reg.Host+"/a:1")
				if tt.refuse != "" {
					if err == nil || !strings.Contains(err.Error(), tt.refuse) {
						t.Errorf("error is %v", err)
					}
					nothingHalf(t, s)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				wantFile(t, tree(t, s, img.Target, nil), strings.Replace(tt.inside, "OUT", out, 1), "evil")
			})
		}
	}
}

func TestDevicesAndModesAreWhatTheLayerSays(t *testing.T) {
	reg, s := registrytest.Start(t), stores(t, t.TempDir())
	xattr := map[string]string{"SCHILY.xattr.user.note": "hi", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}
	serve(reg, "a", "1", gzipLayer(t,
		file{name: "null", kind: tar.TypeChar, mode: 0o666, hdr: tar.Header{Devmajor: 1, Devminor: 3}},
		file{name: "loop", kind: tar.TypeBlock, mode: 0o660, hdr: tar.Header{Devmajor: 7, Devminor: 0}},
		file{name: "fifo", kind: tar.TypeFifo, mode: 0o600},
		file{name: "su", data: "x", mode: 0o4755, hdr: tar.Header{Uid: 12, Gid: 34}},
		file{name: "caps", data: "x", mode: 0o755, hdr: tar.Header{PAXRecords: xattr}},
		file{name: "sticky/", mode: 0o1777},
		file{name: "hard", data: "h"}, file{name: "hard2", kind: tar.TypeLink, link: "hard"},
	))
	img, err := pull(t, s, reg.Host+"/a:1")
	if err != nil {
		t.Fatal(err)
	}
	dir := tree(t, s, img.Target, nil)
	stat := func(name string) (st unix.Stat_t) {
		if err := unix.Lstat(filepath.Join(dir, name), &st); err != nil {
			t.Error(err)
		}
		return st
	}
	if st := stat("null"); st.Mode != unix.S_IFCHR|0o666 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null is %o %x", st.Mode, st.Rdev)
	}
	if st := stat("loop"); st.Mode != unix.S_IFBLK|0o660 || st.Rdev != unix.Mkdev(7, 0) {
		t.Errorf("loop is %o %x", st.Mode, st.Rdev)
	}
	if st := stat("fifo"); st.Mode != unix.S_IFIFO|0o600 {
		t.Errorf("fifo is %o", st.Mode)
	}
	if st := stat("su"); st.Mode != unix.S_IFREG|0o4755 || st.Uid != 12 || st.Gid != 34 || st.Mtim.Sec != 1_000_000_000 {
		t.Errorf("su is %o %d:%d %d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec)
	}
	if st := stat("sticky"); st.Mode != unix.S_IFDIR|0o1777 || st.Mtim.Sec != 1_000_000_000 {
		t.Errorf("sticky is %o %d", st.Mode, st.Mtim.Sec)
	}
	if a, b := stat("hard"), stat("hard2"); a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("hard links are inodes %d and %d", a.Ino, b.Ino)
	}
	buf := make([]byte, 64)
	for k, v := range xattr {
		name := strings.TrimPrefix(k, "SCHILY.xattr.")
		if n, err := unix.Lgetxattr(filepath.Join(dir, "caps"), name, buf); err != nil || string(buf[:n]) != v {
			t.Errorf("xattr %s is %q, %v", name, buf[:max(n, 0)], err)
		}
	}
}

func TestAFullDiskIsSaidAndLeavesNothing(t *testing.T) {
	for _, tt := range []struct {
		name  string
		full  string // which store is on the small disk
		layer func(t *testing.T) blob
	}{
		{"for the snapshots", "overlay", func(t *testing.T) blob {
			// Small as a blob: only what it unpacks to does not fit.
			return gzipLayer(t, file{name: "f", data: strings.Repeat("0123456789abcdef", 1<<19)})
		}},
		{"for the blobs", "content", func(t *testing.T) blob { return gzipLayer(t, file{name: "f", data: big(1, 8<<20)}) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			small := filepath.Join(root, tt.full)
			if err := os.Mkdir(small, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=4m"); err != nil {
				t.Fatalf("mount a small tmpfs (needs CAP_SYS_ADMIN): %v", err)
			}
			t.Cleanup(func() {
				if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
			reg, s := registrytest.Start(t), stores(t, root)
			m := serve(reg, "a", "1", gzipLayer(t, file{name: "base", data: "base"}), tt.layer(t))
			_, err := pull(t, s, reg.Host+"/a:1")
			if !errors.Is(err, unix.ENOSPC) || !errdefs.IsResourceExhausted(err) || !strings.Contains(err.Error(), "layer sha256:") || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v", err)
			}
			nothingHalf(t, s)
			if _, err := s.Content.Info(t.Context(), m.Layers[1].Digest); !errdefs.IsNotFound(err) && tt.full == "content" {
				t.Errorf("blob of the layer: %v", err)
			}
			// With room again it goes on.
			if err := unix.Mount("tmpfs", small, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
				t.Fatal(err)
			}
			img, err := pull(t, s, reg.Host+"/a:1")
			if err != nil {
				t.Fatalf("with room again: %v", err)
			}
			if _, _, err := image.Config(t.Context(), s.Content, img.Target, nil); err != nil {
				t.Error(err)
			}
		})
	}
}
