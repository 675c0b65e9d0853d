package taskapi

import "github.com/gantryd/gantry/internal/wire"

// Event is a message that has a topic; its type URL is its name in containerd/api.
type Event interface {
	wire.Message
	Topic() string
	TypeURL() string
}

// TaskCreate is published when a container is made and not yet started.
type TaskCreate struct {
	ContainerID string
	Bundle      string
	Rootfs      []Mount
	IO          *TaskIO
	Checkpoint  string
	Pid         uint32
}

// Fields lists the fields of containerd.events.TaskCreate.
func (m *TaskCreate) Fields(c *wire.Codec) {
	c.String(1, &m.ContainerID)
	c.String(2, &m.Bundle)
	wire.Repeated(c, 3, &m.Rootfs)
	wire.Optional(c, 4, &m.IO)
	c.String(5, &m.Checkpoint)
	wire.Uint(c, 6, &m.Pid)
}

// Topic is where containerd's clients listen for it.
func (*TaskCreate) Topic() string { return "/tasks/create" }

// TypeURL is the name of the message.
func (*TaskCreate) TypeURL() string { return "containerd.events.TaskCreate" }

// TaskIO says where a container's streams go.
type TaskIO struct {
	Stdin    string
	Stdout   string
	Stderr   string
	Terminal bool
}

// Fields lists the fields of containerd.events.TaskIO.
func (m *TaskIO) Fields(c *wire.Codec) {
	c.String(1, &m.Stdin)
	c.String(2, &m.Stdout)
	c.String(3, &m.Stderr)
	c.Bool(4, &m.Terminal)
}

// TaskStart is published when the user's program runs.
type TaskStart struct {
	ContainerID string
	Pid         uint32
}

// Fields lists the fields of containerd.events.TaskStart.
func (m *TaskStart) Fields(c *wire.Codec) {
	c.String(1, &m.ContainerID)
	wire.Uint(c, 2, &m.Pid)
}

// Topic is where containerd's clients listen for it.
func (*TaskStart) Topic() string { return "/tasks/start" }

// TypeURL is the name of the message.
func (*TaskStart) TypeURL() string { return "containerd.events.TaskStart" }

// TaskExit is published when a container or an exec has ended. ID is the exec's,
// or the container's.
type TaskExit struct {
	ContainerID string
	ID          string
	Pid         uint32
	ExitStatus  uint32
	ExitedAt    *Timestamp
}

// Fields lists the fields of containerd.events.TaskExit.
func (m *TaskExit) Fields(c *wire.Codec) {
	c.String(1, &m.ContainerID)
	c.String(2, &m.ID)
	wire.Uint(c, 3, &m.Pid)
	wire.Uint(c, 4, &m.ExitStatus)
	wire.Optional(c, 5, &m.ExitedAt)
}

// Topic is where containerd's clients listen for it.
func (*TaskExit) Topic() string { return "/tasks/exit" }

// TypeURL is the name of the message.
func (*TaskExit) TypeURL() string { return "containerd.events.TaskExit" }

// TaskDelete is published when nothing of a container's task is left.
type TaskDelete struct {
	ContainerID string
	Pid         uint32
	ExitStatus  uint32
	ExitedAt    *Timestamp
	ID          string
}

// Fields lists the fields of containerd.events.TaskDelete.
func (m *TaskDelete) Fields(c *wire.Codec) {
	c.String(1, &m.ContainerID)
	wire.Uint(c, 2, &m.Pid)
	wire.Uint(c, 3, &m.ExitStatus)
	wire.Optional(c, 4, &m.ExitedAt)
	c.String(5, &m.ID)
}

// Topic is where containerd's clients listen for it.
func (*TaskDelete) Topic() string { return "/tasks/delete" }

// TypeURL is the name of the message.
func (*TaskDelete) TypeURL() string { return "containerd.events.TaskDelete" }

// TaskOOM is published when the kernel killed in the container for want of memory.
type TaskOOM struct{ ContainerID string }

// Fields lists the fields of containerd.events.TaskOOM.
func (m *TaskOOM) Fields(c *wire.Codec) { c.String(1, &m.ContainerID) }

// Topic is where containerd's clients listen for it.
func (*TaskOOM) Topic() string { return "/tasks/oom" }

// TypeURL is the name of the message.
func (*TaskOOM) TypeURL() string { return "containerd.events.TaskOOM" }

// TaskExecAdded is published when an exec is known and not yet started.
type TaskExecAdded struct {
	ContainerID string
	ExecID      string
}

// Fields lists the fields of containerd.events.TaskExecAdded.
func (m *TaskExecAdded) Fields(c *wire.Codec) {
	c.String(1, &m.ContainerID)
	c.String(2, &m.ExecID)
}

// Topic is where containerd's clients listen for it.
func (*TaskExecAdded) Topic() string { return "/tasks/exec-added" }

// TypeURL is the name of the message.
func (*TaskExecAdded) TypeURL() string { return "containerd.events.TaskExecAdded" }

// TaskExecStarted is published when an exec runs.
type TaskExecStarted struct {
	ContainerID string
	ExecID      string
	Pid         uint32
}

// Fields lists the fields of containerd.events.TaskExecStarted.
func (m *TaskExecStarted) Fields(c *wire.Codec) {
	c.String(1, &m.ContainerID)
	c.String(2, &m.ExecID)
	wire.Uint(c, 3, &m.Pid)
}

// Topic is where containerd's clients listen for it.
func (*TaskExecStarted) Topic() string { return "/tasks/exec-started" }

// TypeURL is the name of the message.
func (*TaskExecStarted) TypeURL() string { return "containerd.events.TaskExecStarted" }

// TaskPaused is published when every process of a container is frozen.
type TaskPaused struct{ ContainerID string }

// Fields lists the fields of containerd.events.TaskPaused.
func (m *TaskPaused) Fields(c *wire.Codec) { c.String(1, &m.ContainerID) }

// Topic is where containerd's clients listen for it.
func (*TaskPaused) Topic() string { return "/tasks/paused" }

// TypeURL is the name of the message.
func (*TaskPaused) TypeURL() string { return "containerd.events.TaskPaused" }

// TaskResumed is published when they run again.
type TaskResumed struct{ ContainerID string }

// Fields lists the fields of containerd.events.TaskResumed.
func (m *TaskResumed) Fields(c *wire.Codec) { c.String(1, &m.ContainerID) }

// Topic is where containerd's clients listen for it.
func (*TaskResumed) Topic() string { return "/tasks/resumed" }

// TypeURL is the name of the message.
func (*TaskResumed) TypeURL() string { return "containerd.events.TaskResumed" }

// TaskCheckpointed is published when a checkpoint of a container is on disk.
type TaskCheckpointed struct {
	ContainerID string
	Checkpoint  string
}

// Fields lists the fields of containerd.events.TaskCheckpointed.
func (m *TaskCheckpointed) Fields(c *wire.Codec) {
	c.String(1, &m.ContainerID)
	c.String(2, &m.Checkpoint)
}

// Topic is where containerd's clients listen for it.
func (*TaskCheckpointed) Topic() string { return "/tasks/checkpointed" }

// TypeURL is the name of the message.
func (*TaskCheckpointed) TypeURL() string { return "containerd.events.TaskCheckpointed" }

// Envelope is containerd.types.Envelope: an event with its time and place.
type Envelope struct {
	Timestamp *Timestamp
	Namespace string
	Topic     string
	Event     *Any
}

// Fields lists the fields of containerd.types.Envelope.
func (m *Envelope) Fields(c *wire.Codec) {
	wire.Optional(c, 1, &m.Timestamp)
	c.String(2, &m.Namespace)
	c.String(3, &m.Topic)
	wire.Optional(c, 4, &m.Event)
}

// ForwardRequest is containerd.services.events.ttrpc.v1.ForwardRequest.
type ForwardRequest struct{ Envelope *Envelope }

// Fields lists the fields of ForwardRequest.
func (m *ForwardRequest) Fields(c *wire.Codec) { wire.Optional(c, 1, &m.Envelope) }
