package shim_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containerd/cgroups/v3/cgroup1/stats"
	statsv2 "github.com/containerd/cgroups/v3/cgroup2/stats"
	"github.com/containerd/containerd/api/events"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types/runc/options"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// runtimes are what every test of a container's life runs on.
var runtimes = []struct{ name, binary string }{
	{"the linked runtime", ""},
	{"runc by its command line", "/usr/sbin/runc"},
}

// onEach runs f with each runtime.
func onEach(t *testing.T, f func(t *testing.T, runtime string)) {
	for _, rt := range runtimes {
		t.Run(rt.name, func(t *testing.T) { f(t, rt.binary) })
	}
}

func TestAContainerLivesAndDies(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sh", "-c", "echo out; echo err >&2; exit 7"))
		out, errOut := d.fifo("out"), d.fifo("err")
		stdout, stderr := d.collect(out), d.collect(errOut)
		pid := c.create(runtime, uris{stdout: out, stderr: errOut})
		if st := c.state(""); st.Status != tasktypes.Status_CREATED || st.Pid != pid {
			t.Fatalf("state after create is %v", st)
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
		c.wantNothingLeft()
	})
}

// The runtime and the shim's reaper both wait for a hook: the status of a hook
// that the reaper takes is lost, and counts as success.
func TestAFailedHookOfStartIsAnError(t *testing.T) {
	for i := range 5 {
		for kind, hooks := range map[string]*specs.Hooks{
			"startContainer": {StartContainer: failing(8)},
			"poststart":      {Poststart: failing(8)},
		} {
			d := newDaemon(t)
			s := spec("sleep", "1000")
			s.Hooks = hooks
			c := d.newTask(fmt.Sprint(kind, i), s)
			c.create("", uris{})
			_, err := c.client.Start(c.context(), &taskv3.StartRequest{ID: c.id})
			if want := "running " + kind + " hook #7: run /bin/sh: exit status 3"; err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("start: %v, want %q", err, want)
			}
			if got := c.wait(""); got != 137 {
				t.Errorf("exit status is %d, want 137", got)
			}
			c.delete("")
			c.wantNothingLeft()
		}
	}
}

// failing are n hooks, of which the last fails.
func failing(n int) []specs.Hook {
	hooks := slices.Repeat([]specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 0"}}}, n)
	hooks[n-1].Args = []string{"sh", "-c", "exit 3"}
	return hooks
}

func TestAnExecLivesAndDies(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		c.create(runtime, uris{})
		c.run("")
		in, out := d.fifo("in"), d.fifo("out")
		stdout := d.collect(out)
		c.exec("e", uris{stdin: in, stdout: out}, "sh", "-c", "cat; exit 9")
		if st := c.state("e"); st.Status != tasktypes.Status_CREATED || st.ExecID != "e" {
			t.Errorf("state of the exec is %v", st)
		}
		c.run("e")
		pid := c.state("e").Pid
		if got := c.pids(); got[pid] != "e" {
			t.Errorf("pids are %v, want e at %d", got, pid)
		}
		w, err := os.OpenFile(in, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(w, "through the fifo")
		w.Close()
		if _, err := c.client.CloseIO(c.context(), &taskv3.CloseIORequest{ID: c.id, ExecID: "e", Stdin: true}); err != nil {
			t.Error(err)
		}
		if got := c.wait("e"); got != 9 {
			t.Errorf("exit status is %d, want 9", got)
		}
		if got := stdout(); got != "through the fifo\n" {
			t.Errorf("stdout is %q", got)
		}
		if r := c.delete("e"); r.ExitStatus != 9 || r.Pid != pid {
			t.Errorf("delete answers %v", r)
		}
		c.wantCode(codes.NotFound, c.stateError("e"))
		c.kill("", 9)
		if got := c.wait(""); got != 137 {
			t.Errorf("exit status is %d, want 137", got)
		}
		c.delete("")
		d.wantTopics("create", "start", "exec-added", "exec-started", "exit", "exit", "delete")
		c.wantNothingLeft()
	})
}

func TestTheExitOfAContainerComesAfterThoseOfItsExecs(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		c.create(runtime, uris{})
		c.run("")
		for _, id := range []string{"a", "b", "c"} {
			c.exec(id, uris{}, "sleep", "1000")
			c.run(id)
		}
		c.kill("", 9)
		for _, id := range []string{"", "a", "b", "c"} {
			if got := c.wait(id); got != 137 {
				t.Errorf("exit status of %q is %d, want 137", id, got)
			}
		}
		exits := d.exits(4)
		if exits[3].ID != c.id {
			t.Errorf("the last exit is of %q", exits[3].ID)
		}
		c.delete("")
	})
}

func TestWhatCannotBeStartedIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("/nowhere"))
		_, err := c.client.Create(c.context(), &taskv3.CreateTaskRequest{ID: c.id, Bundle: c.bundle, Rootfs: c.rootfs, Options: runtimeOptions(t, runtime)})
		if err == nil || !strings.Contains(err.Error(), "/nowhere") || !strings.Contains(err.Error(), "no such file or directory") {
			t.Errorf("create says %v", err)
		}
		c.wantCode(codes.NotFound, c.stateError(""))
		c.wantNothingLeft()

		c = d.newTask("two", spec("sleep", "1000"))
		c.create(runtime, uris{})
		c.run("")
		c.exec("e", uris{}, "/nowhere")
		if _, err := c.client.Start(c.context(), &taskv3.StartRequest{ID: c.id, ExecID: "e"}); err == nil || !strings.Contains(err.Error(), "/nowhere") {
			t.Errorf("start of an exec says %v", err)
		}
		if got := c.wait("e"); got != 255 {
			t.Errorf("exit status is %d, want 255", got)
		}
		if st := c.state("e"); st.Status != tasktypes.Status_CREATED { // containerd's issue 10589
			t.Errorf("an exec that could not be started is %v", st.Status)
		}
		_, err = c.client.Start(c.context(), &taskv3.StartRequest{ID: c.id, ExecID: "e"})
		c.wantCode(codes.FailedPrecondition, err)
		c.delete("e")
		c.kill("", 9)
		c.wait("")
		c.delete("")
		d.wantTopics("create", "start", "exec-added", "exit", "delete")
	})
}

// What wraps a runtime reads the pid where containerd's shim has it; that the process
// ends before the creation has is no failure of it (containerd's issue 9103).
func TestAContainerThatIsKilledWhileItIsCreatedHasStopped(t *testing.T) {
	wrapper := filepath.Join(t.TempDir(), "wrapped-runc")
	script := "#!/bin/sh\nrunc \"$@\" || exit\ncase \" $* \" in *\" create \"*) kill -9 $(cat init.pid);; esac\n"
	if err := os.WriteFile(wrapper, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t)
	c := d.newTask("one", spec("sleep", "1000"))
	c.create(wrapper, uris{})
	if got := c.wait(""); got != 137 {
		t.Errorf("exit status is %d, want 137", got)
	}
	if st := c.state(""); st.Status != tasktypes.Status_STOPPED {
		t.Errorf("state is %v", st.Status)
	}
	c.delete("")
	d.wantTopics("create", "exit", "delete")
}

func TestAPausedContainerCanBeResumedAndKilled(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		c.create(runtime, uris{})
		_, err := c.client.Pause(c.context(), &taskv3.PauseRequest{ID: c.id})
		c.wantCode(codes.FailedPrecondition, err)
		c.run("")
		pause := func() {
			t.Helper()
			if _, err := c.client.Pause(c.context(), &taskv3.PauseRequest{ID: c.id}); err != nil {
				t.Fatal(err)
			}
			if st := c.state(""); st.Status != tasktypes.Status_PAUSED {
				t.Errorf("state is %v", st.Status)
			}
		}
		pause()
		if _, err := c.client.Resume(c.context(), &taskv3.ResumeRequest{ID: c.id}); err != nil {
			t.Fatal(err)
		}
		if st := c.state(""); st.Status != tasktypes.Status_RUNNING {
			t.Errorf("state is %v", st.Status)
		}
		pause()
		c.kill("", 9)
		if got := c.wait(""); got != 137 {
			t.Errorf("exit status is %d, want 137", got)
		}
		c.delete("")
		topics := d.topics()
		if !slices.Equal(topics[:5], []string{"create", "start", "paused", "resumed", "paused"}) {
			t.Errorf("events are %v", topics)
		}
		c.wantNothingLeft()
	})
}

func TestLimitsAreUpdatedAndMeasured(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		c.create(runtime, uris{})
		c.run("")
		limit := int64(64 << 20)
		r, err := json.Marshal(specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: ptr(int64(99))}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.client.Update(c.context(), &taskv3.UpdateTaskRequest{ID: c.id, Resources: &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/LinuxResources", Value: r}}); err != nil {
			t.Fatal(err)
		}
		resp, err := c.client.Stats(c.context(), &taskv3.StatsRequest{ID: c.id})
		if err != nil {
			t.Fatal(err)
		}
		var memory, pids, cpu uint64
		switch resp.Stats.TypeUrl {
		case "io.containerd.cgroups.v1.Metrics":
			var m stats.Metrics
			decode(t, resp.Stats, &m)
			memory, pids, cpu = m.GetMemory().GetUsage().GetLimit(), m.GetPids().GetLimit(), m.GetCPU().GetUsage().GetTotal()
		case "io.containerd.cgroups.v2.Metrics":
			var m statsv2.Metrics
			decode(t, resp.Stats, &m)
			memory, pids, cpu = m.GetMemory().GetUsageLimit(), m.GetPids().GetLimit(), m.GetCPU().GetUsageUsec()
		default:
			t.Fatalf("stats are a %s", resp.Stats.TypeUrl)
		}
		if memory != uint64(limit) || pids != 99 || cpu == 0 {
			t.Errorf("memory limit %d, pids limit %d, cpu %d", memory, pids, cpu)
		}
		_, err = c.client.Update(c.context(), &taskv3.UpdateTaskRequest{ID: c.id, Resources: &anypb.Any{Value: []byte("{")}})
		if err == nil {
			t.Error("resources that are no JSON are taken")
		}
		c.kill("", 9)
		c.wait("")
		c.delete("")
	})
}

func decode(t *testing.T, a *anypb.Any, m proto.Message) {
	t.Helper()
	if err := proto.Unmarshal(a.Value, m); err != nil {
		t.Fatal(err)
	}
	if unknown := m.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		t.Errorf("%s has unknown fields: %x", a.TypeUrl, unknown)
	}
}

func TestOOMIsToldBeforeTheExit(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		for _, row := range []struct{ name, first string }{
			{"at once", ""},
			{"later", "sleep 0.3;"},
		} {
			t.Run(row.name, func(t *testing.T) {
				d := newDaemon(t)
				s := spec("sh", "-c", row.first+"exec dd if=/dev/zero of=/dev/null bs=64M count=1")
				s.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}}
				c := d.newTask("one", s)
				c.create(runtime, uris{})
				c.run("")
				if got := c.wait(""); got != 137 {
					t.Errorf("exit status is %d, want 137", got)
				}
				c.delete("")
				d.wantTopics("create", "start", "oom", "exit", "delete")
			})
		}
	})
}

func ptr[T any](v T) *T { return &v }

func TestATaskThatWasNeverStartedLeavesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("true"))
		c.create(runtime, uris{})
		c.delete("")
		c.wantCode(codes.NotFound, c.stateError(""))
		c.wantNothingLeft()
	})
}

// A checkpoint is restored by Start: until then there is no process.
func TestACheckpointThatIsNotThereLeavesNothing(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		for name, start := range map[string]bool{"never started": false, "started": true} {
			t.Run(name, func(t *testing.T) {
				d := newDaemon(t)
				c := d.newTask("one", spec("true"))
				r, err := c.client.Create(c.context(), &taskv3.CreateTaskRequest{
					ID: c.id, Bundle: c.bundle, Rootfs: c.rootfs, Options: runtimeOptions(t, runtime), Checkpoint: filepath.Join(t.TempDir(), "absent"),
				})
				if err != nil || r.Pid != 0 {
					t.Fatalf("pid %d, %v", r.GetPid(), err)
				}
				if st := c.state(""); st.Status != tasktypes.Status_CREATED {
					t.Errorf("it is %v", st.Status)
				}
				_, err = c.client.Checkpoint(c.context(), &taskv3.CheckpointTaskRequest{ID: c.id, Path: t.TempDir()})
				c.wantCode(codes.FailedPrecondition, err)
				if start {
					if _, err := c.client.Start(c.context(), &taskv3.StartRequest{ID: c.id}); err == nil {
						t.Error("it is restored")
					} else if runtime == "" {
						c.wantCode(codes.NotFound, err)
					}
				}
				c.delete("")
				c.wantNothingLeft()
			})
		}
	})
}

func TestAVerbAtTheWrongTimeIsRefused(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		c.create(runtime, uris{})
		_, err := c.client.Create(c.context(), &taskv3.CreateTaskRequest{ID: c.id, Bundle: c.bundle})
		c.wantCode(codes.AlreadyExists, err)
		c.run("")
		_, err = c.client.Start(c.context(), &taskv3.StartRequest{ID: c.id})
		c.wantCode(codes.FailedPrecondition, err)
		_, err = c.client.Delete(c.context(), &taskv3.DeleteRequest{ID: c.id})
		c.wantCode(codes.FailedPrecondition, err)
		_, err = c.client.Kill(c.context(), &taskv3.KillRequest{ID: c.id, ExecID: "none", Signal: 9})
		c.wantCode(codes.NotFound, err)
		_, err = c.client.Kill(c.context(), &taskv3.KillRequest{ID: "other", Signal: 9})
		c.wantCode(codes.NotFound, err)
		_, err = c.client.ResizePty(c.context(), &taskv3.ResizePtyRequest{ID: c.id, Width: 80, Height: 25})
		c.wantCode(codes.FailedPrecondition, err)
		_, err = c.client.Checkpoint(c.context(), &taskv3.CheckpointTaskRequest{ID: c.id})
		c.wantCode(codes.InvalidArgument, err)
		c.exec("e", uris{}, "true")
		_, err = c.client.Exec(c.context(), &taskv3.ExecProcessRequest{ID: c.id, ExecID: "e", Spec: process(t, "true")})
		c.wantCode(codes.AlreadyExists, err)
		if _, err := c.client.Shutdown(c.context(), &taskv3.ShutdownRequest{ID: c.id}); err != nil {
			t.Error(err)
		}
		if st := c.state(""); st.Status != tasktypes.Status_RUNNING {
			t.Errorf("after Shutdown the task is %v", st.Status)
		}
		c.kill("", 9)
		c.wait("")
		_, err = c.client.Kill(c.context(), &taskv3.KillRequest{ID: c.id, Signal: 9})
		c.wantCode(codes.NotFound, err)
		_, err = c.client.Start(c.context(), &taskv3.StartRequest{ID: c.id})
		c.wantCode(codes.FailedPrecondition, err)
		c.delete("")
		_, err = c.client.Delete(c.context(), &taskv3.DeleteRequest{ID: c.id})
		c.wantCode(codes.NotFound, err)
		if _, err := c.client.Shutdown(c.context(), &taskv3.ShutdownRequest{ID: c.id}); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(c.socket); err == nil {
			t.Error("Shutdown is answered, and the socket is still there")
		}
	})
}

func TestDeleteCleansUpAfterAShimThatWasKilled(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		for _, row := range []struct {
			name   string
			shared bool // the container has no pid namespace of its own
		}{
			{"with a pid namespace", false},
			{"in the host's pid namespace", true},
		} {
			t.Run(row.name, func(t *testing.T) {
				d := newDaemon(t)
				s := spec("sh", "-c", "sleep 1000 & sleep 1000 & exec sleep 1000")
				if row.shared {
					s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
				}
				c := d.newTask("one", s)
				l := d.logger("one", nil)
				pid := c.create(runtime, uris{stdout: l.URI(), stderr: l.URI()})
				c.run("")
				c.exec("e", uris{}, "sleep", "1000")
				c.run("e")
				eventually(t, "three sleeps and an exec run", func() bool { return len(c.pids()) == 4 })
				pids := c.pids()
				c.killShim()
				var r taskv3.DeleteResponse
				if err := proto.Unmarshal([]byte(c.command("delete").output()), &r); err != nil {
					t.Fatal(err)
				}
				if r.ExitStatus != 137 || r.Pid != pid || r.ExitedAt.AsTime().Before(time.Now().Add(-time.Minute)) {
					t.Errorf("delete says %v, want 137 and %d", &r, pid)
				}
				for pid := range pids {
					gone(t, int(pid))
				}
				c.wantNothingLeft()
				for _, path := range []string{l.Attach, c.socket} {
					if _, err := os.Lstat(path); err == nil {
						t.Errorf("%s is still there", path)
					}
				}
				c.command("delete").output() // a second time changes nothing
			})
		}
	})
}

// A shim that is killed between the freezing and the thawing of a container that it
// kills leaves processes that no signal reaches, on cgroup v1.
func TestDeleteEndsWhatAShimLeftFrozen(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		for _, row := range []struct {
			name   string
			first  bool // the first process has ended
			killed bool // the others have been sent SIGKILL
		}{
			{"a container that runs", false, false},
			{"one that is being killed", false, true},
			{"what a first process left", true, false},
			{"what a first process left, being killed", true, true},
		} {
			t.Run(row.name, func(t *testing.T) {
				d := newDaemon(t)
				s := spec("sh", "-c", "sleep 1000 & sleep 1000 & exec sleep 1000")
				s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.PIDNamespace })
				c := d.newTask("one", s)
				pid := c.create(runtime, uris{})
				c.run("")
				eventually(t, "three sleeps run", func() bool { return len(c.pids()) == 3 })
				pids := c.pids()
				if row.first {
					unix.Kill(int(pid), unix.SIGKILL)
					c.wait("")
				}
				freeze(t, s.Linux.CgroupsPath)
				for pid := range pids {
					if row.killed {
						unix.Kill(int(pid), unix.SIGKILL)
					}
				}
				c.killShim()
				c.command("delete").output()
				for pid := range pids {
					gone(t, int(pid))
				}
				c.wantNothingLeft()
			})
		}
	})
}

// freeze freezes a group, and waits until it is.
func freeze(t *testing.T, group string) {
	t.Helper()
	file, value := "/sys/fs/cgroup/freezer"+group+"/freezer.state", "FROZEN"
	done, want := file, value
	if _, err := os.Stat(file); err != nil { // cgroup v2
		file, value = "/sys/fs/cgroup"+group+"/cgroup.freeze", "1"
		done, want = "/sys/fs/cgroup"+group+"/cgroup.events", "frozen 1"
	}
	if err := os.WriteFile(file, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the group is frozen", func() bool {
		now, _ := os.ReadFile(done)
		return strings.Contains(string(now), want)
	})
}

func TestAnExitIsKeptUntilItIsAcknowledged(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sh", "-c", "exit 42"))
		c.create(runtime, uris{})
		c.run("")
		c.wait("")
		c.killShim()
		var r taskv3.DeleteResponse
		if err := proto.Unmarshal([]byte(c.command("delete").output()), &r); err != nil {
			t.Fatal(err)
		}
		if r.ExitStatus != 42 {
			t.Errorf("delete says %d, want 42", r.ExitStatus)
		}
		c.wantNothingLeft()
	})
}

// A shim that was killed has its socket until the kernel is done with its process: it
// can be connected to, and nobody answers.
func TestDeleteRemovesTheSocketOfAShimThatIsStillDying(t *testing.T) {
	d := newDaemon(t)
	c := d.prepare("one", spec("true"))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(d.dir, "dying")})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.WriteFile(filepath.Join(c.bundle, "address"), []byte("unix://"+l.Addr().String()), 0o600); err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := l.Accept() // the kernel does as much
		l.Close()
		if err == nil {
			conn.Close()
		}
	}()
	c.command("delete").output()
	if _, err := os.Lstat(l.Addr().String()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

func TestAPodSharesOneShim(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		pod := spec("sleep", "1000")
		pod.Annotations = map[string]string{"io.kubernetes.cri.sandbox-id": "pod"}
		first := d.newTask("pod", pod)
		first.create(runtime, uris{})
		first.run("")
		member := spec("sh", "-c", "exit 3")
		member.Annotations = pod.Annotations
		second := d.newTask("member", member)
		if second.socket != first.socket {
			t.Fatalf("the shims listen on %s and %s", first.socket, second.socket)
		}
		second.create(runtime, uris{})
		second.run("")
		if got := second.wait(""); got != 3 {
			t.Errorf("exit status is %d", got)
		}
		second.delete("")
		if _, err := second.client.Shutdown(second.context(), &taskv3.ShutdownRequest{ID: second.id}); err != nil {
			t.Error(err)
		}
		if st := first.state(""); st.Status != tasktypes.Status_RUNNING {
			t.Errorf("the pod is %v", st.Status)
		}
		second.wantNothingLeft()
		second.command("delete").output() // as containerd does; the pod's socket stays
		if _, err := os.Stat(first.socket); err != nil {
			t.Error(err)
		}
		first.kill("", 9)
		first.wait("")
		first.delete("")
	})
}

func TestATerminalHasItsSizeBeforeItStarts(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		c.create(runtime, uris{})
		c.run("")
		out := d.fifo("out")
		stdout := d.collect(out)
		c.exec("e", uris{stdout: out, tty: true}, "sh", "-c", "stty size; tty")
		if _, err := c.client.ResizePty(c.context(), &taskv3.ResizePtyRequest{ID: c.id, ExecID: "e", Height: 33, Width: 77}); err != nil {
			t.Fatal(err)
		}
		c.run("e")
		c.wait("e")
		c.delete("e")
		if got, want := stdout(), "33 77\r\n/dev/pts/0\r\n"; got != want {
			t.Errorf("the terminal said %q, want %q", got, want)
		}
		c.kill("", 9)
		c.wait("")
		c.delete("")
	})
}

func TestStdinMayBeClosedBeforeTheStart(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		c.create(runtime, uris{})
		c.run("")
		c.exec("e", uris{stdin: d.fifo("in")}, "cat")
		if _, err := c.client.CloseIO(c.context(), &taskv3.CloseIORequest{ID: c.id, ExecID: "e", Stdin: true}); err != nil {
			t.Fatal(err)
		}
		c.run("e")
		if got := c.wait("e"); got != 0 {
			t.Errorf("exit status is %d", got)
		}
		c.delete("e")
		c.kill("", 9)
		c.wait("")
		c.delete("")
	})
}

// quietGoroutines are ours in a shim with one container and one client: main,
// which accepts, the client's connection, the watches for the end and for OOM. That
// another runtime leaves orphans to it, the shim hears in one more.
func quietGoroutines(runtime string) int {
	if runtime == "" {
		return 4
	}
	return 5
}

// ourGoroutines are those paragraphs of a dump that have a function of ours in them.
func ourGoroutines(dump string) (ours []string) {
	for g := range strings.SplitSeq(dump, "\n\n") {
		if strings.Contains(g, "gantry/shim") {
			ours = append(ours, g)
		}
	}
	return ours
}

func TestExecsLeaveNoDescriptorAndNoGoroutine(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		c := d.newTask("one", spec("sleep", "1000"))
		log := c.log()
		c.create(runtime, uris{})
		c.run("")
		c.exec("warm", uris{}, "true")
		c.run("warm")
		c.wait("warm")
		c.delete("warm")
		shim := c.shimPid()
		d.wantTopics("create", "start", "exec-added", "exec-started", "exit")
		time.Sleep(100 * time.Millisecond) // the watch for OOM begins, the events' connection ends
		before := descriptors(t, shim)
		in, out := d.fifo("in"), d.fifo("out")
		for i := range 12 {
			id := fmt.Sprint("e", i)
			u := uris{stdin: in, stdout: out, tty: i%2 == 0}
			if i%3 == 0 {
				l := d.logger(id, nil)
				u.stdin, u.stdout, u.stderr = "", l.URI(), l.URI()
			}
			c.exec(id, u, "true")
			c.run(id)
			c.wait(id)
			c.delete(id)
		}
		eventually(t, "as many descriptors as before", func() bool { return len(descriptors(t, shim)) == len(before) })
		time.Sleep(50 * time.Millisecond) // who wrote the last answer has ended
		unix.Kill(shim, unix.SIGQUIT)     // has a Go program say what its goroutines do, and end
		gone(t, shim)
		if ours := ourGoroutines(log()); len(ours) != quietGoroutines(runtime) {
			t.Errorf("%d goroutines, want %d:\n%.10000s", len(ours), quietGoroutines(runtime), strings.Join(ours, "\n\n"))
		}
		c.command("delete").output()
		c.wantNothingLeft()
	})
}

// exits waits for n exits and gives them in order.
func (d *daemon) exits(n int) []*events.TaskExit {
	d.t.Helper()
	var exits []*events.TaskExit
	eventually(d.t, fmt.Sprint(n, " exits"), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		exits = nil
		for _, e := range d.events {
			if e.Topic == "/tasks/exit" {
				var exit events.TaskExit
				if err := proto.Unmarshal(e.Event.Value, &exit); err != nil {
					d.t.Error(err)
				}
				exits = append(exits, &exit)
			}
		}
		return len(exits) == n
	})
	return exits
}

// wantNothingLeft says that neither mount nor cgroup is left, nor a file in the
// bundle but what was there before.
func (t *task) wantNothingLeft() {
	t.t.Helper()
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.t.Fatal(err)
	}
	if strings.Contains(string(mounts), t.bundle+"/") {
		t.t.Errorf("something is mounted in %s", t.bundle)
	}
	groups, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(t.dir) + "/" + t.id)
	unified, _ := filepath.Glob("/sys/fs/cgroup/" + filepath.Base(t.dir) + "/" + t.id)
	if groups = append(groups, unified...); len(groups) > 0 {
		t.t.Errorf("cgroups are left: %v", groups)
	}
	files, _ := filepath.Glob(t.bundle + "/*")
	for _, f := range files {
		switch name := filepath.Base(f); name {
		case "config.json", "rootfs", "address", "log":
		case "shim.json", "init.pid", "exit": // for `delete` to be repeated
		default:
			t.t.Errorf("%s is left", name)
		}
	}
}

// wantCode says that err has a code, as containerd's clients see it.
func (t *task) wantCode(want codes.Code, err error) {
	t.t.Helper()
	if got := status.Code(err); got != want {
		t.t.Errorf("the error is %v, want %v", err, want)
	}
}

// eventually waits for what must come soon.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain: %s", what)
}

func descriptors(t *testing.T, pid int) (all []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			all = append(all, to)
		}
	}
	return all
}

// children are the processes that pid has to wait for, zombies too.
func children(t *testing.T, pid int) []int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var all []int
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for _, f := range strings.Fields(string(data)) {
			n, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, n)
		}
	}
	return all
}

func TestOrphansOfAContainerAmongTheHostsProcessesAreReaped(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		d := newDaemon(t)
		s := spec("sleep", "1000")
		s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.PIDNamespace })
		c := d.newTask("one", s)
		pid := c.create(runtime, uris{})
		c.run("")
		c.exec("parent", uris{}, "sh", "-c", "sleep 1 &")
		c.run("parent")
		c.wait("parent")
		c.delete("parent")
		shim := c.shimPid()
		eventually(t, "the shim has no child but the container", func() bool { return slices.Equal(children(t, shim), []int{int(pid)}) })
		c.kill("", uint32(unix.SIGKILL))
		c.wait("")
		c.delete("")
	})
}

func TestAContainerIsKnownAgainAfterTheShimHasForgottenIt(t *testing.T) {
	d := newDaemon(t)
	c := d.newTask("one", spec("sleep", "1000"))
	c.create("", uris{})
	c.run("")
	shim := c.shimPid()
	eventually(t, "the shim lets go of the container, and keeps one pidfd to learn of its end", func() bool {
		n := 0
		for _, d := range descriptors(t, shim) {
			if strings.Contains(d, "pidfd") {
				n++
			}
		}
		return n == 1
	})
	c.exec("late", uris{}, "sh", "-c", "exit 3")
	c.run("late")
	if got := c.wait("late"); got != 3 {
		t.Errorf("exit status of the exec is %d, want 3", got)
	}
	c.delete("late")
	c.kill("", uint32(unix.SIGKILL))
	if got := c.wait(""); got != 137 {
		t.Errorf("exit status is %d, want 137", got)
	}
	c.delete("")
	c.wantNothingLeft()
}

func TestAUserCanOpenItsStreamsAgain(t *testing.T) {
	onEach(t, func(t *testing.T, runtime string) {
		for group := range uint32(2) {
			d := newDaemon(t)
			s := spec("sh", "-c", "echo again > /proc/self/fd/1")
			s.Process.User = specs.User{UID: 1000, GID: 1000}
			task := d.newTask("one", s)
			out := d.fifo("out")
			read := d.collect(out)
			task.createWith(encoded(t, &options.Options{BinaryName: runtime, IoUid: 1000 * group, IoGid: 1001 * group}), uris{stdout: out})
			task.run("")
			if got := task.wait(""); got != 0 {
				t.Errorf("exit status is %d", got)
			}
			var st unix.Stat_t
			if err := unix.Stat(out, &st); err != nil {
				t.Fatal(err)
			}
			gid := uint32(1000) // the linked runtime gives the group too
			if runtime != "" {
				gid = 1001 * group
			}
			if st.Uid != 1000 || st.Gid != gid {
				t.Errorf("stdout belongs to %d:%d, want 1000:%d", st.Uid, st.Gid, gid)
			}
			task.delete("")
			if got := read(); got != "again\n" {
				t.Errorf("stdout is %q", got)
			}
		}
	})
}

func TestTheShimJoinsTheCgroupThatOptionsName(t *testing.T) {
	d := newDaemon(t)
	name := filepath.Base(d.dir) + "-shim"
	dir, line := "/sys/fs/cgroup/pids/"+name, ":pids:/"+name+"\n"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		dir, line = "/sys/fs/cgroup/"+name, "0::/"+name+"\n"
	}
	c := d.newTask("one", spec("sleep", "1000"))
	_, err := c.client.Create(c.context(), &taskv3.CreateTaskRequest{
		ID: c.id, Bundle: c.bundle, Rootfs: c.rootfs, Options: encoded(t, &options.Options{ShimCgroup: "/" + name}),
	})
	c.wantCode(codes.NotFound, err)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // a shim that nobody has waited for yet is in it
		eventually(t, "the cgroup is empty", func() bool { return os.Remove(dir) == nil })
	})
	pid := c.createWith(encoded(t, &options.Options{ShimCgroup: "/" + name}), uris{})
	for of, want := range map[int]bool{c.shimPid(): true, int(pid): false} {
		groups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", of))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(groups), line) != want {
			t.Errorf("cgroups of %d are %s, and %q in them is to be %v", of, groups, line, want)
		}
	}
	c.delete("")
	ctx := c.context()
	shim := c.shimPid()
	if _, err := c.client.Shutdown(ctx, &taskv3.ShutdownRequest{ID: c.id}); err != nil {
		t.Fatal(err)
	}
	gone(t, shim)
}

// A container that sees every process of its own, and may do everything, finds
// neither the shim nor its memory to write to, whatever is executed in it meanwhile
// (CVE-2019-5736).
func TestTheShimCannotBeWrittenFromAContainer(t *testing.T) {
	before, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	d := newDaemon(t)
	attack := `cd /proc; while :; do for p in [0-9]*; do
		exe=$(readlink $p/exe) || continue
		case $exe in /bin/*) ;; *memfd:*) echo SEEN >> /seen; (echo evil >> $p/exe) 2>/dev/null && echo WRITTEN >> /seen;; *) echo FOUND $exe >> /seen;; esac
	done; done`
	s := spec("sh", "-c", attack)
	mighty := []string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_KILL"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: mighty, Effective: mighty, Permitted: mighty}
	c := d.newTask("one", s)
	seen := filepath.Join(d.dir, "upper", "one", "seen")
	c.create("", uris{})
	evil := filepath.Join(d.dir, "upper", "one", "evil")
	if err := os.WriteFile(evil, []byte("#!/proc/self/exe\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	c.run("")
	said := func() string {
		data, _ := os.ReadFile(seen)
		return string(data)
	}
	for i := 0; i < 10 || i < 1000 && !strings.Contains(said(), "SEEN"); i++ {
		id := fmt.Sprint("e", i)
		c.exec(id, uris{}, []string{"true", "/evil"}[i%2])
		_, err := c.client.Start(c.context(), &taskv3.StartRequest{ID: c.id, ExecID: id})
		if err == nil {
			if st := c.wait(id); i%2 == 1 && st == 0 {
				t.Error("the plan ran a second time, inside")
			}
		}
		c.delete(id)
	}
	if got := said(); got == "" || strings.Trim(got, "SEN\n") != "" {
		t.Errorf("the attacker says %q", got)
	}
	if after, err := os.ReadFile(binary); err != nil || !slices.Equal(before, after) {
		t.Fatalf("the shim was written, %v", err)
	}
	c.kill("", uint32(unix.SIGKILL))
	c.wait("")
	c.delete("")
}
