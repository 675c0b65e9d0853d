// Package snapshottest holds every implementation of snapshot.Snapshotter to
// the same behaviour. It mounts, so it needs root.
package snapshottest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/internal/mount"
	"github.com/gantryd/gantry/store/snapshot"
)

// Run runs the suite. make gives a snapshotter that is empty, and the context
// for it.
func Run(t *testing.T, make func(t *testing.T) (context.Context, snapshot.Snapshotter)) {
	for _, tt := range []struct {
		name string
		run  func(s suite)
	}{
		{"a snapshot shows its parents and its own changes", suite.stacks},
		{"a hundred layers can be mounted", suite.manyLayers},
		{"a view cannot be written", suite.views},
		{"a commit replaces the labels", suite.commitLabels},
		{"labels are set whole or one by one", suite.labels},
		{"a name is given once", suite.unique},
		{"a parent must be committed", suite.parents},
		{"only an active snapshot is committed", suite.commitsActive},
		{"a parent is not removed", suite.removal},
		{"usage counts each inode once", suite.usage},
		{"walk sees what the filters choose", suite.walks},
		{"what is not there is NotFound", suite.notThere},
		{"a layer finds its parent when it is committed", suite.rebases},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, s := make(t)
			tt.run(suite{T: t, ctx: ctx, s: s})
		})
	}
}

type suite struct {
	*testing.T
	ctx context.Context
	s   snapshot.Snapshotter
}

// root keeps a snapshot from a garbage collector for as long as a test runs.
var root = map[string]string{"containerd.io/gc.root": "snapshottest"}

func (t suite) must(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t suite) want(what string, err error, is func(error) bool) {
	t.Helper()
	if !is(err) {
		t.Errorf("%s: unexpected error %v", what, err)
	}
}

// on mounts and runs fn with the directory.
func (t suite) on(mounts []mount.Mount, err error, fn func(dir string)) {
	t.Helper()
	t.must(err)
	dir := t.TempDir()
	t.must(mount.All(mounts, dir))
	defer func() { t.must(mount.Unmount(dir)) }()
	fn(dir)
}

func (t suite) prepare(key, parent string) ([]mount.Mount, error) {
	return t.s.Prepare(t.ctx, key, parent, root)
}

// layer commits name on parent, with a file called name that says name.
func (t suite) layer(name, parent string) {
	t.Helper()
	m, err := t.prepare("making-"+name, parent)
	t.on(m, err, func(dir string) { t.write(dir, name, name) })
	t.must(t.s.Commit(t.ctx, name, "making-"+name, root))
}

func (t suite) write(dir, file, data string) {
	t.Helper()
	t.must(os.WriteFile(filepath.Join(dir, file), []byte(data), 0o644))
}

func (t suite) reads(dir, file, want string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil || string(data) != want {
		t.Errorf("%s is %q, %v, want %q", file, data, err, want)
	}
}

func (t suite) stacks() {
	t.layer("one", "")
	m, err := t.prepare("two-active", "one")
	t.on(m, err, func(dir string) {
		t.reads(dir, "one", "one")
		t.write(dir, "one", "changed")
		t.write(dir, "two", "two")
	})
	t.must(t.s.Commit(t.ctx, "two", "two-active", root))
	m, err = t.prepare("three", "two")
	t.on(m, err, func(dir string) {
		t.reads(dir, "one", "changed")
		t.must(os.Remove(filepath.Join(dir, "two")))
	})
	m, err = t.s.Mounts(t.ctx, "three")
	t.on(m, err, func(dir string) {
		if _, err := os.Stat(filepath.Join(dir, "two")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a removed file is there: %v", err)
		}
	})
	m, err = t.s.View(t.ctx, "below", "one", root)
	t.on(m, err, func(dir string) { t.reads(dir, "one", "one") })

	info, err := t.s.Stat(t.ctx, "two")
	t.must(err)
	if info.Kind != snapshot.Committed || info.Name != "two" || info.Parent != "one" || info.Created.IsZero() || info.Updated.IsZero() {
		t.Errorf("info is %+v", info)
	}
	_, err = t.s.Mounts(t.ctx, "two")
	if err == nil {
		t.Error("a committed snapshot has mounts")
	}
}

func (t suite) manyLayers() {
	parent := ""
	for i := range 100 {
		name := fmt.Sprintf("layer-%d", i)
		_, err := t.prepare("a", parent)
		t.must(err)
		t.must(t.s.Commit(t.ctx, name, "a", root))
		parent = name
	}
	m, err := t.prepare("top", parent)
	t.on(m, err, func(dir string) { t.write(dir, "f", "f") })
}

func (t suite) views() {
	t.layer("one", "")
	t.layer("two", "one")
	for _, parent := range []string{"", "one", "two"} {
		m, err := t.s.View(t.ctx, "view-"+parent, parent, root)
		t.on(m, err, func(dir string) {
			if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o644); err == nil {
				t.Errorf("a view of %q was written", parent)
			}
			if parent != "" {
				t.reads(dir, "one", "one")
			}
		})
		t.want("commit of a view", t.s.Commit(t.ctx, "c", "view-"+parent, root), errdefs.IsFailedPrecondition)
	}
}

func (t suite) commitLabels() {
	_, err := t.s.Prepare(t.ctx, "a", "", map[string]string{"containerd.io/gc.root": "x", "active": "1"})
	t.must(err)
	t.must(t.s.Commit(t.ctx, "c", "a", map[string]string{"containerd.io/gc.root": "y"}))
	info, err := t.s.Stat(t.ctx, "c")
	t.must(err)
	if len(info.Labels) != 1 || info.Labels["containerd.io/gc.root"] != "y" {
		t.Errorf("labels are %v", info.Labels)
	}
}

func (t suite) labels() {
	t.layer("one", "")
	for _, tt := range []struct {
		name   string
		given  map[string]string
		fields []string
		want   map[string]string
	}{
		{"without fields all are replaced", map[string]string{"a": "1", "b": "2"}, nil, map[string]string{"a": "1", "b": "2"}},
		{"a field changes one", map[string]string{"a": "3"}, []string{"labels.a"}, map[string]string{"a": "3", "b": "2"}},
		{"an empty value removes", nil, []string{"labels.b"}, map[string]string{"a": "3"}},
		{"the field labels replaces all", root, []string{"labels"}, root},
	} {
		_, err := t.s.Update(t.ctx, snapshot.Info{Name: "one", Labels: tt.given}, tt.fields...)
		t.must(err)
		info, err := t.s.Stat(t.ctx, "one")
		t.must(err)
		if fmt.Sprint(info.Labels) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, info.Labels, tt.want)
		}
	}
	_, err := t.s.Update(t.ctx, snapshot.Info{Name: "one"}, "parent")
	t.want("update of the parent", err, errdefs.IsInvalidArgument)
}

func (t suite) unique() {
	t.layer("one", "")
	_, err := t.prepare("a", "")
	t.must(err)
	_, err = t.prepare("a", "one")
	t.want("prepare", err, errdefs.IsAlreadyExists)
	_, err = t.prepare("one", "")
	t.want("prepare with the name of a committed one", err, errdefs.IsAlreadyExists)
	t.want("commit", t.s.Commit(t.ctx, "one", "a", root), errdefs.IsAlreadyExists)
	if info, err := t.s.Stat(t.ctx, "a"); err != nil || info.Kind != snapshot.Active {
		t.Errorf("a refused commit left %+v, %v", info, err)
	}
}

func (t suite) parents() {
	_, err := t.prepare("a", "nowhere")
	t.want("prepare on nothing", err, errdefs.IsNotFound)
	_, err = t.prepare("a", "")
	t.must(err)
	if _, err = t.prepare("b", "a"); err == nil {
		t.Error("an active snapshot became a parent")
	}
	_, err = t.s.Stat(t.ctx, "b")
	t.want("what was refused", err, errdefs.IsNotFound)
}

func (t suite) commitsActive() {
	t.layer("one", "")
	t.want("commit of a committed one", t.s.Commit(t.ctx, "x", "one", root), errdefs.IsFailedPrecondition)
	t.want("commit of nothing", t.s.Commit(t.ctx, "x", "nowhere", root), errdefs.IsNotFound)
}

func (t suite) removal() {
	t.layer("one", "")
	t.layer("two", "one")
	_, err := t.prepare("three", "two")
	t.must(err)
	t.want("remove of a parent", t.s.Remove(t.ctx, "one"), errdefs.IsFailedPrecondition)
	for _, key := range []string{"three", "two", "one"} {
		t.must(t.s.Remove(t.ctx, key))
		_, err := t.s.Stat(t.ctx, key)
		t.want("stat of what was removed", err, errdefs.IsNotFound)
	}
}

func (t suite) usage() {
	m, err := t.prepare("a", "")
	t.must(err)
	before, err := t.s.Usage(t.ctx, "a")
	t.must(err)
	t.on(m, nil, func(dir string) {
		t.write(dir, "f", string(make([]byte, 1<<20)))
		t.must(os.Link(filepath.Join(dir, "f"), filepath.Join(dir, "g")))
	})
	after, err := t.s.Usage(t.ctx, "a")
	t.must(err)
	if d := after.Inodes - before.Inodes; d != 1 {
		t.Errorf("one file with two names is %d inodes", d)
	}
	if d := after.Size - before.Size; d < 1<<20 || d > 1<<20+64<<10 {
		t.Errorf("1 MiB takes %d bytes", d)
	}
	t.must(t.s.Commit(t.ctx, "c", "a", root))
	committed, err := t.s.Usage(t.ctx, "c")
	t.must(err)
	if committed != after {
		t.Errorf("committed usage is %+v, want %+v", committed, after)
	}
}

func (t suite) walks() {
	t.layer("one", "")
	_, err := t.prepare("two", "one")
	t.must(err)
	seen := func(filters ...string) string {
		m := map[string]snapshot.Kind{}
		t.must(t.s.Walk(t.ctx, func(i snapshot.Info) error {
			m[i.Name] = i.Kind
			_, err := t.s.Stat(t.ctx, i.Name) // the snapshotter can be used meanwhile
			return err
		}, filters...))
		return fmt.Sprint(m)
	}
	for _, tt := range []struct{ filter, want string }{
		{"", "map[one:Committed two:Active]"},
		{"kind==active", "map[two:Active]"},
		{"kind==committed", "map[one:Committed]"},
		{"parent==one", "map[two:Active]"},
		{"name==one", "map[one:Committed]"},
		{`labels."containerd.io/gc.root"==other`, "map[]"},
	} {
		if got := seen(tt.filter); got != tt.want {
			t.Errorf("%q chooses %s, want %s", tt.filter, got, tt.want)
		}
	}
	stop := errors.New("stop")
	if err := t.s.Walk(t.ctx, func(snapshot.Info) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("walk gave %v, want the error of its function", err)
	}
}

func (t suite) notThere() {
	_, err := t.s.Stat(t.ctx, "nowhere")
	t.want("stat", err, errdefs.IsNotFound)
	_, err = t.s.Usage(t.ctx, "nowhere")
	t.want("usage", err, errdefs.IsNotFound)
	_, err = t.s.Mounts(t.ctx, "nowhere")
	t.want("mounts", err, errdefs.IsNotFound)
	_, err = t.s.Update(t.ctx, snapshot.Info{Name: "nowhere"})
	t.want("update", err, errdefs.IsNotFound)
	t.want("remove", t.s.Remove(t.ctx, "nowhere"), errdefs.IsNotFound)
}

func (t suite) rebases() {
	r, ok := t.s.(snapshot.Rebaser)
	if !ok || !r.Rebases() {
		return // an optional ability
	}
	t.layer("one", "")
	m, err := t.prepare("a", "")
	t.on(m, err, func(dir string) { t.write(dir, "two", "two") })
	t.want("a parent that is not there", r.CommitOnto(t.ctx, "two", "a", "nowhere", root), errdefs.IsNotFound)
	t.must(r.CommitOnto(t.ctx, "two", "a", "one", root))
	m, err = t.prepare("three", "two")
	t.on(m, err, func(dir string) {
		t.reads(dir, "one", "one")
		t.reads(dir, "two", "two")
	})
	t.want("remove of the parent", t.s.Remove(t.ctx, "one"), errdefs.IsFailedPrecondition)
	_, err = t.prepare("b", "two")
	t.must(err)
	t.want("another parent", r.CommitOnto(t.ctx, "x", "b", "one", root), errdefs.IsFailedPrecondition)
}
