package engine

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/moby/moby/api/types/container"
	dockernet "github.com/moby/moby/api/types/network"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
)

// warm has the engine know the layers of the image: what is created from now on has
// its config.json at once.
func (r *rig) warm() {
	r.t.Helper()
	id := r.create("warm", "true", nil)
	r.call("DELETE", "/containers/"+id, nil, 204, nil)
}

func TestAStartWhoseRecordWasNotWrittenIsFoundAgain(t *testing.T) {
	r := newRig(t)
	r.warm()
	web := dockernet.MustParsePort("80/tcp")
	host := &container.HostConfig{
		RestartPolicy: container.RestartPolicy{Name: "unless-stopped"},
		PortBindings:  dockernet.PortMap{web: {{HostIP: netip.MustParseAddr("127.0.0.1"), HostPort: "8732"}}},
	}
	for _, c := range []struct {
		name string
		host *container.HostConfig
	}{
		{"bridge", host},
		{"alone", &container.HostConfig{NetworkMode: "none"}},
		{"hosts", &container.HostConfig{NetworkMode: "host"}},
	} {
		id := r.run(c.name, "sleep 1000", c.host)
		before := r.inspect(id)
		r.kill() // sooner than the record is written, if nothing holds this up
		r.start()
		after := r.inspect(id)
		if !after.State.Running || after.State.Pid != before.State.Pid {
			t.Errorf("%s: %+v, pid %d before", c.name, after.State, before.State.Pid)
		}
		if !reflect.DeepEqual(after.NetworkSettings, before.NetworkSettings) {
			t.Errorf("%s: network %+v, before %+v", c.name, after.NetworkSettings, before.NetworkSettings)
		}
	}
}

func TestAFileThatIsPutBeforeTheStartCounts(t *testing.T) {
	r := newRig(t)
	r.warm()
	id := r.create("aa", "cat /proc/self/status", nil, func(c *container.Config) { c.User = "root" })
	const passwd = "root:x:12:34::/:/bin/sh\n"
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	check(t, w.WriteHeader(&tar.Header{Name: "passwd", Mode: 0o644, Size: int64(len(passwd))}))
	_, err := w.Write([]byte(passwd))
	check(t, err)
	check(t, w.Close())
	r.call("PUT", "/containers/aa/archive?path=/etc", &b, 200, nil)
	r.call("POST", "/containers/aa/start", nil, 204, nil)
	r.wait(id)
	if log := r.log(id); !strings.Contains(log, "Uid:\t12\t") || !strings.Contains(log, "Gid:\t34\t") {
		t.Errorf("the user is not that of the new file: %s", log)
	}
}

func TestAnUpdateBeforeTheStartCounts(t *testing.T) {
	r := newRig(t)
	r.warm()
	id := r.create("aa", "sleep 1000", nil)
	r.call("POST", "/containers/aa/update", container.UpdateConfig{Resources: container.Resources{CPUShares: 77}}, 200, nil)
	r.call("POST", "/containers/aa/start", nil, 204, nil)
	if got := r.specOf(id); !strings.Contains(got, `"shares":77`) {
		t.Errorf("the spec does not have the update: %s", got)
	}
}

// specOf is the config.json of the record.
func (r *rig) specOf(id string) string {
	r.t.Helper()
	resp, err := r.ctrd.Containers.Get(r.t.Context(), &containersapi.GetContainerRequest{ID: id})
	check(r.t, err)
	return string(resp.Container.Spec.GetValue())
}

func TestAContainerThatACommitHeldIsNotShownAsPaused(t *testing.T) {
	r := newRig(t)
	id := r.run("aa", "sleep 1000", &container.HostConfig{NetworkMode: "none"})
	r.kill()
	resp, err := r.ctrd.Containers.Get(t.Context(), &containersapi.GetContainerRequest{ID: id})
	check(t, err)
	rec, err := parseRecord(resp.Container.Extensions[recordKey])
	check(t, err)
	rec.State.Held = true // as a commit leaves it that is killed
	resp.Container.Extensions[recordKey], err = rec.any()
	check(t, err)
	_, err = r.ctrd.Containers.Update(t.Context(), &containersapi.UpdateContainerRequest{
		Container: resp.Container, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"extensions." + recordKey}},
	})
	check(t, err)
	_, err = r.ctrd.Tasks.Pause(t.Context(), &tasksapi.PauseTaskRequest{ContainerID: id})
	check(t, err)
	r.start()
	if s := r.inspect(id).State; !s.Running || s.Paused {
		t.Errorf("after the restart: %+v", s)
	}
	r.eventually(func() error {
		got, err := r.ctrd.Tasks.Get(t.Context(), &tasksapi.GetRequest{ContainerID: id})
		if err == nil && got.Process.Status != task.Status_RUNNING {
			err = fmt.Errorf("the task is %s", got.Process.Status)
		}
		return err
	})
}
