package shim

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/api/journey"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/taskapi"
	"github.com/gantryd/gantry/shim/internal/ttrpc"
)

// The two names of the Task service; their methods are the same.
const (
	taskV2 = "containerd.task.v2.Task"
	taskV3 = "containerd.task.v3.Task"
)

// handle answers one call.
func (s *Shim) handle(ctx context.Context, c *ttrpc.Call) (resp wire.Message, err error) {
	switch c.Service {
	case taskV2, taskV3:
		resp, err = s.handleTask(ctx, c)
	case sandboxV1:
		resp, err = s.handleSandbox(ctx, c)
	case shimV1:
		resp, err = s.handleShim(ctx, c)
	default:
		err = fmt.Errorf("service %s: %w", c.Service, errdefs.ErrNotImplemented)
	}
	return resp, status(err)
}

// handleTask is the Task service. A table of its methods would be on the heap of
// every shim; this is in the program.
func (s *Shim) handleTask(ctx context.Context, c *ttrpc.Call) (wire.Message, error) {
	switch c.Method {
	case "State":
		return with(ctx, c, s.state)
	case "Create":
		return s.createTask(c)
	case "Start":
		return with(ctx, c, s.startProcess)
	case "Delete":
		return with(ctx, c, s.deleteProcess)
	case "Pids":
		return with(ctx, c, s.pids)
	case "Pause":
		return with(ctx, c, s.pause)
	case "Resume":
		return with(ctx, c, s.resume)
	case "Checkpoint":
		return with(ctx, c, s.checkpoint)
	case "Kill":
		return with(ctx, c, s.kill)
	case "Exec":
		return with(ctx, c, s.exec)
	case "ResizePty":
		return with(ctx, c, s.resizePty)
	case "CloseIO":
		return with(ctx, c, s.closeIO)
	case "Update":
		return with(ctx, c, s.update)
	case "Wait":
		return with(ctx, c, s.wait)
	case "Stats":
		return with(ctx, c, s.stats)
	case "Connect":
		return with(ctx, c, s.connect)
	case "Shutdown":
		return with(ctx, c, s.shutdown)
	}
	return nil, noMethod(c)
}

func noMethod(c *ttrpc.Call) error {
	return fmt.Errorf("method %s/%s: %w", c.Service, c.Method, errdefs.ErrNotImplemented)
}

// with decodes the request of a call and has f answer it.
func with[T any, P interface {
	*T
	wire.Message
}](ctx context.Context, c *ttrpc.Call, f func(context.Context, P) (wire.Message, error)) (wire.Message, error) {
	var r T
	if err := unmarshal(c.Payload, P(&r)); err != nil {
		return nil, err
	}
	return f(ctx, &r)
}

func (s *Shim) createTask(call *ttrpc.Call) (wire.Message, error) {
	var r taskapi.CreateRequest
	if err := unmarshal(call.Payload, &r); err != nil {
		return nil, err
	}
	if err := s.reserve(r.ID); err != nil {
		return nil, err
	}
	var t *trip
	if call.Metadata[journey.Key] == "1" {
		t = &trip{}
	}
	done := t.step("Task.Create", r.ID)
	c, err := s.create(&r, t)
	if err != nil {
		s.put(r.ID, nil)
		return nil, err
	}
	s.put(r.ID, c)
	done()
	c.saveJourney()
	return &taskapi.PidResponse{Pid: uint32(c.init.pid)}, nil
}

// lookup finds a process of a container.
func (s *Shim) lookup(id, execID string) (*process, error) {
	c, err := s.find(id)
	if err != nil {
		return nil, err
	}
	return c.process(execID)
}

func (s *Shim) startProcess(_ context.Context, r *taskapi.ProcessRequest) (wire.Message, error) {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.ExecID != "" {
		if err = p.startExec(); s.execs.Add(1)%settleExecs == 0 {
			s.settleSoon() // what is in use may have grown
		}
	} else {
		done := p.container.journey.step("Task.Start", r.ID)
		err = p.container.start()
		done()
		p.container.saveJourney()
		s.settleSoon()
	}
	if err != nil {
		return nil, err
	}
	return &taskapi.PidResponse{Pid: uint32(p.pid)}, nil
}

// settleExecs is the number of execs after which to settle again.
const settleExecs = 32

func (s *Shim) deleteProcess(_ context.Context, r *taskapi.ProcessRequest) (wire.Message, error) {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.ExecID != "" {
		return p.deleteResponse(), p.deleteExec()
	}
	if err := p.container.delete(); err != nil {
		return nil, err
	}
	s.put(r.ID, nil)
	resp := p.deleteResponse()
	s.events.publish(&taskapi.TaskDelete{
		ContainerID: r.ID,
		Pid:         resp.Pid,
		ExitStatus:  resp.ExitStatus,
		ExitedAt:    resp.ExitedAt,
	})
	return resp, nil
}

func (s *Shim) state(_ context.Context, r *taskapi.ProcessRequest) (wire.Message, error) {
	s.awaitCreation(r.ID)
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	return p.state(), nil
}

func (s *Shim) pids(_ context.Context, r *taskapi.ProcessRequest) (wire.Message, error) {
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	pids, err := c.runtime.pids()
	if err != nil {
		return nil, err
	}
	execs := c.execPids()
	resp := &taskapi.PidsResponse{}
	for _, pid := range pids {
		info := taskapi.ProcessInfo{Pid: uint32(pid)}
		if id, ok := execs[pid]; ok {
			details := taskapi.ProcessDetails{ExecID: id}
			info.Info = &taskapi.Any{TypeURL: taskapi.ProcessDetailsType, Value: wire.Marshal(&details)}
		}
		resp.Processes = append(resp.Processes, info)
	}
	return resp, nil
}

func (s *Shim) pause(_ context.Context, r *taskapi.ProcessRequest) (wire.Message, error) {
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	if err := c.turn(doPause, c.runtime.pause); err != nil {
		return nil, err
	}
	s.events.publish(&taskapi.TaskPaused{ContainerID: r.ID})
	return nil, nil
}

func (s *Shim) resume(_ context.Context, r *taskapi.ProcessRequest) (wire.Message, error) {
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	if err := c.turn(doResume, c.runtime.resume); err != nil {
		return nil, err
	}
	s.events.publish(&taskapi.TaskResumed{ContainerID: r.ID})
	return nil, nil
}

func (s *Shim) kill(_ context.Context, r *taskapi.KillRequest) (wire.Message, error) {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if r.All && r.ExecID == "" {
		return nil, p.container.killAll(int(r.Signal))
	}
	return nil, p.kill(int(r.Signal))
}

func (s *Shim) exec(_ context.Context, r *taskapi.ExecRequest) (wire.Message, error) {
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	if err := c.addExec(r); err != nil {
		return nil, err
	}
	s.events.publish(&taskapi.TaskExecAdded{ContainerID: r.ID, ExecID: r.ExecID})
	return nil, nil
}

func (s *Shim) resizePty(_ context.Context, r *taskapi.ResizeRequest) (wire.Message, error) {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	return nil, p.resize(r.Width, r.Height)
}

func (s *Shim) closeIO(_ context.Context, r *taskapi.CloseIORequest) (wire.Message, error) {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if !r.Stdin {
		return nil, nil
	}
	return nil, p.closeStdin()
}

func (s *Shim) update(_ context.Context, r *taskapi.UpdateRequest) (wire.Message, error) {
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	if r.Resources == nil {
		return nil, fmt.Errorf("update %s: no resources: %w", r.ID, errdefs.ErrInvalidArgument)
	}
	return nil, c.runtime.update(r.Resources.Value)
}

// wait answers when the process has ended and its log is whole.
func (s *Shim) wait(ctx context.Context, r *taskapi.ProcessRequest) (wire.Message, error) {
	p, err := s.lookup(r.ID, r.ExecID)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, p.done); err != nil {
		return nil, err
	}
	resp := p.deleteResponse()
	return &taskapi.WaitResponse{ExitStatus: resp.ExitStatus, ExitedAt: resp.ExitedAt}, nil
}

// await waits for what a call waits for. Meanwhile the call is outside of the gate:
// in the shim that takes over it begins again.
func (s *Shim) await(ctx context.Context, done <-chan struct{}) error {
	s.gate.Leave()
	defer s.gate.Enter()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return &ttrpc.Status{Code: 1, Message: ctx.Err().Error()}
	}
}

func (s *Shim) stats(_ context.Context, r *taskapi.ProcessRequest) (wire.Message, error) {
	c, err := s.find(r.ID)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	cgroups := c.cgroups
	c.mu.Unlock()
	if cgroups == nil {
		return nil, fmt.Errorf("stats of %s: its cgroups are not known: %w", r.ID, errdefs.ErrNotFound)
	}
	m, err := cgroups.Read()
	if err != nil {
		return nil, fmt.Errorf("stats of %s: %w", r.ID, err)
	}
	return &taskapi.StatsResponse{Stats: m}, nil
}

func (s *Shim) connect(_ context.Context, r *taskapi.ProcessRequest) (wire.Message, error) {
	resp := &taskapi.ConnectResponse{ShimPid: uint32(os.Getpid())}
	if c, err := s.find(r.ID); err == nil {
		resp.TaskPid = uint32(c.init.pid)
	}
	return resp, nil
}

// shutdown ends the shim, unless it still has a container or is a sandbox: then
// it is a pod's, and another container's end (runtime v2 README, "Shutdown").
func (s *Shim) shutdown(_ context.Context, _ *taskapi.ShutdownRequest) (wire.Message, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.containers) == 0 && s.sandbox == nil {
		// Before the answer: who has it need not look after the socket, though the shim
		// be killed now. And once: the next one there is the next shim's.
		if s.cfg.SocketPath != "" {
			os.Remove(s.cfg.SocketPath)
			s.cfg.SocketPath = ""
		}
		s.server.Stop()
	}
	return nil, nil
}
