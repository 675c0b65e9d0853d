package tarcopy

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestThereAndBack(t *testing.T) {
	src := t.TempDir()
	if err := os.MkdirAll(filepath.Join(src, "d", "sub"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(src, "d", "sub", "f"), []byte("text"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("sub/f", filepath.Join(src, "d", "l")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(src, "d", "sub", "f"), filepath.Join(src, "d", "z")); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := Pack(&b, filepath.Join(src, "d"), "d"); err != nil {
		t.Fatal(err)
	}
	dst := t.TempDir()
	if err := Unpack(&b, dst, "d", "e", false); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dst, "e", "l")); err != nil || string(text) != "text" {
		t.Errorf("through the link: %q, %v", text, err)
	}
	one, err1 := os.Stat(filepath.Join(dst, "e", "sub", "f"))
	two, err2 := os.Stat(filepath.Join(dst, "e", "z"))
	if err1 != nil || err2 != nil || !os.SameFile(one, two) || one.Mode() != 0o640 {
		t.Errorf("hard link: %v %v %v %v", one, two, err1, err2)
	}
}

// A container may send anything: nothing of it lands outside the destination.
func TestAHostileArchiveStaysInside(t *testing.T) {
	for _, row := range []struct {
		name    string
		entries []tar.Header
	}{
		{"a name that climbs", []tar.Header{{Name: "../out", Typeflag: tar.TypeReg}}},
		{"a name that climbs later", []tar.Header{{Name: "d/../../out", Typeflag: tar.TypeReg}}},
		{"a link to the outside and a file through it", []tar.Header{
			{Name: "d", Typeflag: tar.TypeSymlink, Linkname: ".."}, {Name: "d/out", Typeflag: tar.TypeReg},
		}},
		{"a hard link to the outside", []tar.Header{{Name: "d", Typeflag: tar.TypeLink, Linkname: "../secret"}}},
		{"a device", []tar.Header{{Name: "d", Typeflag: tar.TypeBlock, Devmajor: 8}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			parent := t.TempDir()
			dst := filepath.Join(parent, "dst")
			if err := os.Mkdir(dst, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(parent, "secret"), []byte("s"), 0o600); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range row.entries {
				h.Mode = 0o644
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			w.Close()
			if err := Unpack(&b, dst, "x", "x", false); err == nil {
				t.Error("it was taken")
			}
			if _, err := os.Lstat(filepath.Join(parent, "out")); err == nil {
				t.Error("it was written outside")
			}
			info, err := os.Stat(filepath.Join(dst, "d"))
			secret, _ := os.Stat(filepath.Join(parent, "secret"))
			if err == nil && os.SameFile(info, secret) {
				t.Error("it reached a file outside")
			}
		})
	}
}
