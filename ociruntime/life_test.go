package ociruntime

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"
)

func TestLife(t *testing.T) {
	r := newRig(t)
	s := dockerSpec(t, "sleep", "100")
	b, err := r.create(s)
	if err != nil {
		t.Fatal(err)
	}
	is := func(want Status) {
		t.Helper()
		other, err := Load(r.root, b.ID)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		for _, c := range []*Container{b.Container, other} {
			st, err := c.State()
			if err != nil || st.Status != want {
				t.Errorf("status %q, want %q, %v", st.Status, want, err)
			}
		}
	}
	is(Created)
	other, err := Load(r.root, b.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	is(Running)
	if err := b.Start(context.Background()); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("started twice: %v", err)
	}
	if err := b.Delete(context.Background(), false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("deleted while running: %v", err)
	}
	out, ws, err := b.exec(process(s, "sh", "-c", "echo hello from $$; hostname; exit 3"))
	if err != nil || ws.ExitStatus() != 3 {
		t.Errorf("exec: %q %v %v", out, ws, err)
	}
	t.Log(out)
	if err := b.Pause(); err != nil {
		t.Error(err)
	}
	is(Paused)
	if _, _, err := b.exec(process(s, "true")); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("exec in a paused container: %v", err)
	}
	if err := b.Resume(); err != nil {
		t.Error(err)
	}
	is(Running)
	if err := b.Kill(unix.SIGKILL, false); err != nil {
		t.Error(err)
	}
	start := time.Now()
	if ws := b.wait(); ws.Signal() != unix.SIGKILL {
		t.Errorf("ended with %v", ws)
	}
	t.Log(time.Since(start))
	is(Stopped)
	if err := b.Kill(unix.SIGTERM, false); !errdefs.IsNotFound(err) {
		t.Errorf("killed twice: %v", err)
	}
	if err := b.Delete(context.Background(), false); err != nil {
		t.Error(err)
	}
	if _, err := Load(r.root, b.ID); !errdefs.IsNotFound(err) {
		t.Errorf("load after delete: %v", err)
	}
	if b.group.Exists() {
		t.Error("its cgroups are left")
	}
}

func TestWhatAKilledCreateOrDeleteLeftIsForgotten(t *testing.T) {
	root := t.TempDir()
	for _, left := range []string{"", ".state.json.123", specFile} {
		dir := filepath.Join(root, "box")
		err := os.Mkdir(dir, 0o711)
		if err == nil && left != "" {
			err = os.WriteFile(filepath.Join(dir, left), nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := Forget(root, "box"); err != nil {
			t.Errorf("with %q: %v", left, err)
		}
		if dir, err := claim(root, "box"); err != nil {
			t.Errorf("with %q the name is not free: %v", left, err)
		} else if err := abandon(dir); err != nil {
			t.Error(err)
		}
	}
	dir, err := claim(root, "kept")
	if err == nil {
		err = (&record{State: State{ID: "kept"}}).write(dir)
	}
	if err == nil {
		err = Forget(root, "kept")
	}
	if err != nil {
		t.Fatal(err)
	}
	if c, err := Load(root, "kept"); err != nil {
		t.Errorf("one that is there was forgotten: %v", err)
	} else {
		c.Close()
	}
}
