package shim_test

import (
	"os"
	"path/filepath"
	"testing"

	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	tasktypes "github.com/containerd/containerd/api/types/task"
)

// runtimes are what every test of a container's life runs on.
var runtimes = []struct{ name, binary string }{
	{"the linked runtime", ""},
	{"runc by its command line", "/usr/sbin/runc"},
}

func TestAContainerLivesAndDies(t *testing.T) {
	for _, rt := range runtimes {
		t.Run(rt.name, func(t *testing.T) {
			d := newDaemon(t)
			c := d.newTask("one", spec("sh", "-c", "echo out; echo err >&2; exit 7"))
			out, errOut := d.fifo("out"), d.fifo("err")
			stdout, stderr := d.collect(out), d.collect(errOut)
			pid := c.create(rt.binary, uris{stdout: out, stderr: errOut})
			if st, err := c.client.State(c.context(), &taskv3.StateRequest{ID: c.id}); err != nil || st.Status != tasktypes.Status_CREATED || st.Pid != pid {
				t.Fatalf("state after create is %v, %v", st, err)
			}
			c.run("")
			if got := c.wait(""); got != 7 {
				t.Errorf("exit status is %d, want 7", got)
			}
			if got := stdout(); got != "out\n" {
				t.Errorf("stdout is %q", got)
			}
			if got := stderr(); got != "err\n" {
				t.Errorf("stderr is %q", got)
			}
			if r := c.delete(""); r.ExitStatus != 7 || r.Pid != pid || r.ExitedAt.AsTime().IsZero() {
				t.Errorf("delete answers %v", r)
			}
			d.wantTopics("create", "start", "exit", "delete")
			if entries, _ := os.ReadDir(filepath.Join(c.bundle, "rootfs")); len(entries) != 0 {
				t.Errorf("rootfs is still mounted: %v", entries)
			}
		})
	}
}
