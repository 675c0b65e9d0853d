package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	shim "github.com/containerd/containerd/api/runtime/task/v3"
	api "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/api/journey"
	"github.com/gantryd/gantry/internal/filter"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/lifecycle/internal/shims"
	"github.com/gantryd/gantry/lifecycle/internal/trace"
)

// stateWait is how long one shim may keep a list of all tasks waiting.
const stateWait = 2 * time.Second

// tasks is containerd.services.tasks.v1.Tasks. What is asked of a task is asked
// of its shim.
type tasks struct {
	api.UnimplementedTasksServer
	db     *meta.DB
	shims  *shims.Table
	mounts *mounts
}

func (t *tasks) task(ctx context.Context, id string) (*shims.Task, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	return t.shims.Task(ctx, s.Namespace, id)
}

// ask is a method that the shim has too, with no answer.
func (t *tasks) ask(ctx context.Context, id, method string, req any) (*emptypb.Empty, error) {
	tk, err := t.task(ctx, id)
	if err != nil {
		return nil, err
	}
	err = tk.Call(ctx, method, req, &emptypb.Empty{})
	if errdefs.IsUnavailable(err) && tk.Buried(ctx) {
		err = fmt.Errorf("task %s has ended with its shim: %w", id, errdefs.ErrNotFound)
	}
	return &emptypb.Empty{}, err
}

func (t *tasks) Create(ctx context.Context, r *api.CreateTaskRequest) (_ *api.CreateTaskResponse, err error) {
	ctx, explain := explained(ctx)
	defer explain(nil)
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	images, fill, err := t.images(ctx, s, r)
	if err != nil {
		return nil, fmt.Errorf("create task %s: %w", r.ContainerID, err)
	}
	var join *shims.Endpoint
	if r.TaskApiAddress != "" {
		join = &shims.Endpoint{Address: r.TaskApiAddress, Version: r.TaskApiVersion}
	}
	end := trace.Step(ctx, "read container", r.ContainerID)
	c, err := t.db.Containers(s.Namespace).Get(r.ContainerID)
	end()
	if err != nil {
		return nil, err
	}
	runtime := c.Runtime.Name
	if r.RuntimePath != "" {
		runtime = r.RuntimePath
	}
	options := r.Options
	if len(options.GetValue()) == 0 {
		options = c.Runtime.Options
	}
	activated := false
	pid, err := t.shims.Create(ctx, s.Namespace, r.ContainerID, shims.CreateOptions{
		Runtime: runtime, Options: options, Spec: c.Spec.GetValue(), Sandbox: c.Sandbox, Join: join,
		Request: &shim.CreateTaskRequest{
			Terminal: r.Terminal, Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Options: options,
			Checkpoint: images,
		},
		Checkpoint: fill,
		Rootfs: func(ctx context.Context) (rootfs []*types.Mount, err error) {
			rootfs, activated, err = t.mounts.rootfs(ctx, s.Namespace, r.ContainerID, r.Rootfs)
			return rootfs, err
		},
	})
	if err != nil && activated {
		err = errors.Join(err, t.mounts.endTask(s.Namespace, r.ContainerID))
	}
	if err != nil {
		return nil, err
	}
	return &api.CreateTaskResponse{ContainerID: r.ContainerID, Pid: pid}, nil
}

func (t *tasks) Start(ctx context.Context, r *api.StartRequest) (*api.StartResponse, error) {
	tk, err := t.task(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	ctx, explain := explained(ctx)
	defer explain(tk)
	defer trace.Step(ctx, "shim Start", r.ExecID)()
	var resp shim.StartResponse
	if err := tk.Call(ctx, "Start", &shim.StartRequest{ID: r.ContainerID, ExecID: r.ExecID}, &resp); err != nil {
		return nil, err
	}
	return &api.StartResponse{Pid: resp.Pid}, nil
}

// explained begins a trace where the client wants one. The function that it
// returns sends it in the trailer, with all that the shim of the task tk did so far.
func explained(ctx context.Context) (context.Context, func(tk *shims.Task)) {
	if header(ctx, journey.Key) == "" {
		return ctx, func(*shims.Task) {}
	}
	ctx, tr := trace.With(ctx)
	return ctx, func(tk *shims.Task) {
		if tk != nil {
			tr.Add(tk.Journey()...)
		}
		if data, err := tr.JSON(); err == nil {
			// Without a trailer the client has no journey, and nothing else is lost.
			_ = grpc.SetTrailer(ctx, metadata.Pairs(journey.Trailer, string(data)))
		}
	}
}

func (t *tasks) Delete(ctx context.Context, r *api.DeleteTaskRequest) (*api.DeleteResponse, error) {
	tk, err := t.task(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	resp, err := tk.Delete(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.mounts.endTask(tk.Namespace, tk.ID); err != nil {
		return nil, err
	}
	return &api.DeleteResponse{ID: r.ContainerID, Pid: resp.Pid, ExitStatus: resp.ExitStatus, ExitedAt: resp.ExitedAt}, nil
}

func (t *tasks) DeleteProcess(ctx context.Context, r *api.DeleteProcessRequest) (*api.DeleteResponse, error) {
	tk, err := t.task(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	var resp shim.DeleteResponse
	if err := tk.Call(ctx, "Delete", &shim.DeleteRequest{ID: r.ContainerID, ExecID: r.ExecID}, &resp); err != nil {
		return nil, err
	}
	return &api.DeleteResponse{ID: r.ExecID, Pid: resp.Pid, ExitStatus: resp.ExitStatus, ExitedAt: resp.ExitedAt}, nil
}

func (t *tasks) Get(ctx context.Context, r *api.GetRequest) (*api.GetResponse, error) {
	tk, err := t.task(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	p, err := process(ctx, tk, r.ExecID)
	return &api.GetResponse{Process: p}, err
}

func process(ctx context.Context, tk *shims.Task, exec string) (*task.Process, error) {
	st, err := tk.State(ctx, exec)
	if err != nil {
		return nil, err
	}
	id := tk.ID
	if exec != "" {
		id = exec
	}
	return &task.Process{
		ContainerID: tk.ID, ID: id, Pid: st.Pid, Status: st.Status, Stdin: st.Stdin, Stdout: st.Stdout, Stderr: st.Stderr,
		Terminal: st.Terminal, ExitStatus: st.ExitStatus, ExitedAt: st.ExitedAt,
	}, nil
}

// List asks all shims at once. A task whose shim does not answer is Unknown.
func (t *tasks) List(ctx context.Context, _ *api.ListTasksRequest) (*api.ListTasksResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	all := t.shims.Tasks(s.Namespace)
	out := make([]*task.Process, len(all))
	each(all, func(i int, tk *shims.Task) {
		ctx, cancel := context.WithTimeout(ctx, stateWait)
		defer cancel()
		p, err := process(ctx, tk, "")
		if err != nil && !errdefs.IsNotFound(err) {
			p = &task.Process{ContainerID: tk.ID, ID: tk.ID, Status: task.Status_UNKNOWN}
		}
		out[i] = p
	})
	var resp api.ListTasksResponse
	for _, p := range out {
		if p != nil { // else deleted meanwhile
			resp.Tasks = append(resp.Tasks, p)
		}
	}
	return &resp, nil
}

// each calls fn for all tasks at once and waits.
func each(all []*shims.Task, fn func(int, *shims.Task)) {
	var wg sync.WaitGroup
	for i, tk := range all {
		wg.Go(func() { fn(i, tk) })
	}
	wg.Wait()
}

func (t *tasks) Kill(ctx context.Context, r *api.KillRequest) (*emptypb.Empty, error) {
	return t.ask(ctx, r.ContainerID, "Kill", &shim.KillRequest{ID: r.ContainerID, ExecID: r.ExecID, Signal: r.Signal, All: r.All})
}

func (t *tasks) Exec(ctx context.Context, r *api.ExecProcessRequest) (*emptypb.Empty, error) {
	if r.ExecID == "" {
		return nil, fmt.Errorf("exec in %s without an exec ID: %w", r.ContainerID, errdefs.ErrInvalidArgument)
	}
	return t.ask(ctx, r.ContainerID, "Exec", &shim.ExecProcessRequest{
		ID: r.ContainerID, ExecID: r.ExecID, Terminal: r.Terminal, Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr, Spec: r.Spec,
	})
}

func (t *tasks) ResizePty(ctx context.Context, r *api.ResizePtyRequest) (*emptypb.Empty, error) {
	return t.ask(ctx, r.ContainerID, "ResizePty", &shim.ResizePtyRequest{ID: r.ContainerID, ExecID: r.ExecID, Width: r.Width, Height: r.Height})
}

func (t *tasks) CloseIO(ctx context.Context, r *api.CloseIORequest) (*emptypb.Empty, error) {
	return t.ask(ctx, r.ContainerID, "CloseIO", &shim.CloseIORequest{ID: r.ContainerID, ExecID: r.ExecID, Stdin: r.Stdin})
}

func (t *tasks) Pause(ctx context.Context, r *api.PauseTaskRequest) (*emptypb.Empty, error) {
	return t.ask(ctx, r.ContainerID, "Pause", &shim.PauseRequest{ID: r.ContainerID})
}

func (t *tasks) Resume(ctx context.Context, r *api.ResumeTaskRequest) (*emptypb.Empty, error) {
	return t.ask(ctx, r.ContainerID, "Resume", &shim.ResumeRequest{ID: r.ContainerID})
}

func (t *tasks) Update(ctx context.Context, r *api.UpdateTaskRequest) (*emptypb.Empty, error) {
	return t.ask(ctx, r.ContainerID, "Update", &shim.UpdateTaskRequest{ID: r.ContainerID, Resources: r.Resources, Annotations: r.Annotations})
}

func (t *tasks) ListPids(ctx context.Context, r *api.ListPidsRequest) (*api.ListPidsResponse, error) {
	tk, err := t.task(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	var resp shim.PidsResponse
	if err := tk.Call(ctx, "Pids", &shim.PidsRequest{ID: r.ContainerID}, &resp); err != nil {
		return nil, err
	}
	return &api.ListPidsResponse{Processes: resp.Processes}, nil
}

// Metrics asks the shims of the tasks that match one of the filters; a task that
// has none at the moment is left out.
func (t *tasks) Metrics(ctx context.Context, r *api.MetricsRequest) (*api.MetricsResponse, error) {
	s, err := scopeOf(ctx)
	if err != nil {
		return nil, err
	}
	f, err := filter.Parse(r.Filters...)
	if err != nil {
		return nil, err
	}
	all := t.shims.Tasks(s.Namespace)
	out := make([]*types.Metric, len(all))
	each(all, func(i int, tk *shims.Task) {
		if f.Match(taskFields(tk)) {
			out[i] = stats(ctx, tk)
		}
	})
	var resp api.MetricsResponse
	for _, m := range out {
		if m != nil {
			resp.Metrics = append(resp.Metrics, m)
		}
	}
	return &resp, nil
}

func taskFields(tk *shims.Task) filter.Fields {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "id":
			return tk.ID, true
		case "namespace":
			return tk.Namespace, true
		}
		return "", false
	}
}

func stats(ctx context.Context, tk *shims.Task) *types.Metric {
	ctx, cancel := context.WithTimeout(ctx, stateWait)
	defer cancel()
	var resp shim.StatsResponse
	at := timestamppb.Now()
	if tk.Call(ctx, "Stats", &shim.StatsRequest{ID: tk.ID}, &resp) != nil {
		return nil
	}
	return &types.Metric{ID: tk.ID, Timestamp: at, Data: resp.Stats}
}

func (t *tasks) Wait(ctx context.Context, r *api.WaitRequest) (*api.WaitResponse, error) {
	tk, err := t.task(ctx, r.ContainerID)
	if err != nil {
		return nil, err
	}
	e, err := tk.Wait(ctx, r.ExecID)
	return &api.WaitResponse{ExitStatus: e.Status, ExitedAt: e.At}, err
}
