package engine

import (
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/moby/moby/api/types/container"
	eventsapi "github.com/moby/moby/api/types/events"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/gantryd/gantry/bundle"
	"github.com/gantryd/gantry/bundle/docker"
)

// execs is every process started beside a container's first. They are known as
// long as the container runs and the engine lives.
type execs struct {
	containers *containers

	mu   sync.Mutex
	byID map[string]*execution
}

func newExecs(c *containers) *execs {
	return &execs{containers: c, byID: map[string]*execution{}}
}

func (x *execs) routes() []route {
	return []route{
		{http.MethodPost, "/containers/{id}/exec", x.postCreate},
		{http.MethodPost, "/exec/{id}/start", x.postStart},
		{http.MethodPost, "/exec/{id}/resize", x.postResize},
		{http.MethodGet, "/exec/{id}/json", x.getInspect},
	}
}

// execution is one such process.
type execution struct {
	id   string
	k    *ctr
	wish container.ExecCreateRequest

	mu      sync.Mutex
	began   bool
	running bool
	pid     int
	code    *int
	size    [2]uint // height and width, of the client that starts it
	started chan struct{}
	over    time.Time
}

// keptExec is how long an execution is known after its end.
const keptExec = 5 * time.Minute

// postCreate is POST /containers/{id}/exec.
func (x *execs) postCreate(w http.ResponseWriter, r *http.Request) error {
	k, err := x.containers.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	var wish container.ExecCreateRequest
	if err := readJSON(r, &wish); err != nil {
		return err
	}
	if len(wish.Cmd) == 0 {
		return invalid("No exec command specified")
	}
	if _, err := parseDetachKeys(wish.DetachKeys); err != nil {
		return err
	}
	if err := runs(k); err != nil {
		return err
	}
	e := &execution{id: newID(), k: k, wish: wish, started: make(chan struct{})}
	if wish.ConsoleSize != nil {
		e.size = *wish.ConsoleSize
	}
	x.add(e)
	x.containers.publish(k, eventsapi.ActionExecCreate+eventsapi.Action(": "+strings.Join(wish.Cmd, " ")), map[string]string{"execID": e.id})
	return replyJSON(w, http.StatusCreated, container.ExecCreateResponse{ID: e.id})
}

// runs says why nothing can be started beside k's first process.
func runs(k *ctr) error {
	rec := k.snapshot()
	switch {
	case rec.State.Phase == restarting:
		return conflict("container %s is restarting, wait until the container is running", k.id)
	case k.live() == nil:
		return conflict("container %s is not running", k.id)
	case rec.State.Paused:
		return conflict("container %s is paused, unpause the container before exec", k.id)
	}
	return nil
}

func (x *execs) add(e *execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, old := range x.byID {
		old.mu.Lock()
		stale := !old.over.IsZero() && time.Since(old.over) > keptExec
		old.mu.Unlock()
		if stale {
			delete(x.byID, id)
		}
	}
	x.byID[e.id] = e
}

func (x *execs) find(id string) (*execution, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.byID[id]; ok {
		return e, nil
	}
	var found *execution
	for known, e := range x.byID {
		if id != "" && strings.HasPrefix(known, id) {
			if found != nil {
				return nil, invalid("multiple IDs found with provided prefix: %s", id)
			}
			found = e
		}
	}
	if found == nil {
		return nil, notFound("No such exec instance: %s", id)
	}
	return found, nil
}

// drop makes one unknown that no client has the ID of.
func (x *execs) drop(e *execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, e.id)
}

// of gives the IDs of those of a container that run, or are to; nil for none.
func (x *execs) of(id string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string
	for known, e := range x.byID {
		e.mu.Lock()
		if e.k.id == id && e.over.IsZero() {
			ids = append(ids, known)
		}
		e.mu.Unlock()
	}
	slices.Sort(ids)
	return ids
}

// forget is called when the container has stopped.
func (x *execs) forget(id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for known, e := range x.byID {
		if e.k.id != id {
			continue
		}
		e.mu.Lock()
		began := e.began
		e.mu.Unlock()
		if !began {
			delete(x.byID, known)
		}
	}
}

// getInspect is GET /exec/{id}/json.
func (x *execs) getInspect(w http.ResponseWriter, r *http.Request) error {
	e, err := x.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	keys, err := parseDetachKeys(e.wish.DetachKeys)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	privileged := e.wish.Privileged
	return replyJSON(w, http.StatusOK, container.ExecInspectResponse{
		ID: e.id, Running: e.running, ExitCode: e.code, Pid: e.pid, ContainerID: e.k.id, DetachKeys: keys,
		OpenStdin: e.wish.AttachStdin, OpenStdout: e.wish.AttachStdout, OpenStderr: e.wish.AttachStderr,
		ProcessConfig: &container.ExecProcessConfig{
			Tty: e.wish.Tty, Entrypoint: e.wish.Cmd[0], Arguments: append([]string{}, e.wish.Cmd[1:]...),
			Privileged: &privileged, User: e.wish.User,
		},
	})
}

// postResize is POST /exec/{id}/resize. The client sends it beside the start.
func (x *execs) postResize(w http.ResponseWriter, r *http.Request) error {
	e, err := x.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	height, width, err := parseSize(r)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.Context(), killTime)
	defer cancel()
	if err := wait(ctx, e.started); err != nil {
		return fmt.Errorf("timeout waiting for exec session ready")
	}
	_, err = x.containers.ctrd.Tasks.ResizePty(r.Context(), &tasksapi.ResizePtyRequest{
		ContainerID: e.k.id, ExecID: e.id, Width: width, Height: height,
	})
	if err != nil {
		return conflict("resize exec %s: %w", e.id, err)
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// parseSize reads h and w, in characters.
func parseSize(r *http.Request) (height, width uint32, err error) {
	for _, p := range []struct {
		name string
		to   *uint32
	}{{"h", &height}, {"w", &width}} {
		n, err := strconv.ParseUint(r.FormValue(p.name), 10, 16)
		if err != nil {
			return 0, 0, invalid("invalid resize %s %q: want a number of characters", p.name, r.FormValue(p.name))
		}
		*p.to = uint32(n)
	}
	return height, width, nil
}

// spec is the process in the words of the runtime spec: the container's, with
// what the client wishes in its place.
func (x *execs) spec(e *execution, pid int) (*anypb.Any, error) {
	rec := e.k.snapshot()
	cfg, host := *rec.Config, *rec.HostConfig
	cfg.Entrypoint, cfg.Cmd, cfg.Tty = nil, e.wish.Cmd, e.wish.Tty
	cfg.Env = bundle.Env(cfg.Env, e.wish.Env)
	if e.wish.User != "" {
		cfg.User = e.wish.User
	}
	if e.wish.WorkingDir != "" {
		if !path.IsAbs(e.wish.WorkingDir) {
			return nil, invalid("Cwd must be an absolute path")
		}
		cfg.WorkingDir = e.wish.WorkingDir
	}
	host.Init, host.ConsoleSize = nil, e.size
	host.Privileged = host.Privileged || e.wish.Privileged
	wishes, err := docker.Container(&cfg, &host)
	if err != nil {
		return nil, invalidUnlessKnown(err)
	}
	// As with dockerd, an exec with more rights is confined like its container.
	wishes.AppArmorProfile = x.containers.appArmor.profile(rec.HostConfig)
	wishes.SelinuxLabel, _ = x.containers.seLinux.of(rec)
	p, err := bundle.Process(wishes, bundle.Root{fmt.Sprintf("/proc/%d/root", pid)})
	if err != nil {
		return nil, invalidUnlessKnown(err)
	}
	return specAny(processType, p)
}
