package bundle

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// tree is a layer: names to content; "-> X" is a symbolic link, "whiteout" and
// "opaque" are overlayfs' own.
type tree map[string]string

func layer(t *testing.T, files tree) string {
	dir := t.TempDir()
	for name, content := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch {
		case content == "whiteout":
			err = unix.Mknod(name, unix.S_IFCHR, 0)
		case content == "fifo":
			err = unix.Mkfifo(name, 0o600)
		case content == "opaque":
			if err = os.MkdirAll(name, 0o755); err == nil {
				err = unix.Setxattr(name, "trusted.overlay.opaque", []byte("y"), 0)
			}
		case len(content) > 3 && content[:3] == "-> ":
			err = os.Symlink(content[3:], name)
		default:
			err = os.WriteFile(name, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRootReadsAsOverlayfsShows(t *testing.T) {
	for _, c := range []struct {
		name   string
		layers []tree // the topmost first
		path   string
		want   string // "" is an error
	}{
		{"the topmost layer wins", []tree{{"etc/passwd": "new"}, {"etc/passwd": "old"}}, "/etc/passwd", "new"},
		{"a lower layer is seen through", []tree{{"etc/x": "x"}, {"etc/passwd": "old"}}, "/etc/passwd", "old"},
		{"a whiteout hides a file", []tree{{"etc/passwd": "whiteout"}, {"etc/passwd": "old"}}, "/etc/passwd", ""},
		{"a whiteout hides a directory", []tree{{"etc": "whiteout"}, {"etc/passwd": "old"}}, "/etc/passwd", ""},
		{"an opaque directory hides those below", []tree{{"etc": "opaque", "etc/x": "x"}, {"etc/passwd": "old"}}, "/etc/passwd", ""},
		{"a file hides a directory", []tree{{"etc": "file"}, {"etc/passwd": "old"}}, "/etc/passwd", ""},
		{"a directory over a file over a directory shows itself alone", []tree{{"etc/a": "a"}, {"etc": "f"}, {"etc/passwd": "old"}}, "/etc/passwd", ""},
		{"a link is followed into another layer", []tree{{"etc": "-> usr/etc"}, {"usr/etc/passwd": "old"}}, "/etc/passwd", "old"},
		{"an absolute link stays in the root", []tree{{"etc/passwd": "-> /data/passwd", "data/passwd": "in"}}, "/etc/passwd", "in"},
		{"a link to the host's root does not leave", []tree{{"etc/passwd": "-> ../../../../../etc/passwd"}}, "/etc/passwd", ""},
		{".. behind a link is the target's parent", []tree{{"a": "-> b/c", "b/c/x": "x", "b/passwd": "right", "passwd": "wrong"}}, "/a/../passwd", "right"},
		{"a loop of links ends", []tree{{"etc": "-> cte", "cte": "-> etc"}}, "/etc/passwd", ""},
		{"a fifo is refused at once", []tree{{"etc/passwd": "fifo"}}, "/etc/passwd", ""},
		{"a directory is no file", []tree{{"etc/passwd/x": "x"}}, "/etc/passwd", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var root Root
			for _, l := range c.layers {
				root = append(root, layer(t, l))
			}
			got, err := root.ReadFile(c.path)
			if (err != nil) != (c.want == "") || string(got) != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}
