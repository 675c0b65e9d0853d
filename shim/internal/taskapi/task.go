package taskapi

import "github.com/gantryd/gantry/internal/wire"

// CreateRequest is CreateTaskRequest.
type CreateRequest struct {
	ID               string
	Bundle           string
	Rootfs           []Mount
	Terminal         bool
	Stdin            string
	Stdout           string
	Stderr           string
	Checkpoint       string
	ParentCheckpoint string
	Options          *Any
}

// Fields lists the fields of CreateTaskRequest.
func (m *CreateRequest) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	c.String(2, &m.Bundle)
	wire.Repeated(c, 3, &m.Rootfs)
	c.Bool(4, &m.Terminal)
	c.String(5, &m.Stdin)
	c.String(6, &m.Stdout)
	c.String(7, &m.Stderr)
	c.String(8, &m.Checkpoint)
	c.String(9, &m.ParentCheckpoint)
	wire.Optional(c, 10, &m.Options)
}

// PidResponse is CreateTaskResponse and StartResponse.
type PidResponse struct{ Pid uint32 }

// Fields lists the fields of CreateTaskResponse and StartResponse.
func (m *PidResponse) Fields(c *wire.Codec) { wire.Uint(c, 1, &m.Pid) }

// ProcessRequest names a process: StateRequest, StartRequest, DeleteRequest and
// WaitRequest, and, where ExecID has no meaning, PidsRequest, PauseRequest,
// ResumeRequest, StatsRequest and ConnectRequest.
type ProcessRequest struct {
	ID     string
	ExecID string
}

// Fields lists the fields of StateRequest and its like.
func (m *ProcessRequest) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	c.String(2, &m.ExecID)
}

// DeleteResponse says how a process ended; `delete` prints it too.
type DeleteResponse struct {
	Pid        uint32
	ExitStatus uint32
	ExitedAt   *Timestamp
}

// Fields lists the fields of DeleteResponse.
func (m *DeleteResponse) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.Pid)
	wire.Uint(c, 2, &m.ExitStatus)
	wire.Optional(c, 3, &m.ExitedAt)
}

// ExecRequest is ExecProcessRequest. Spec holds an OCI process as JSON.
type ExecRequest struct {
	ID       string
	ExecID   string
	Terminal bool
	Stdin    string
	Stdout   string
	Stderr   string
	Spec     *Any
}

// Fields lists the fields of ExecProcessRequest.
func (m *ExecRequest) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	c.String(2, &m.ExecID)
	c.Bool(3, &m.Terminal)
	c.String(4, &m.Stdin)
	c.String(5, &m.Stdout)
	c.String(6, &m.Stderr)
	wire.Optional(c, 7, &m.Spec)
}

// ResizeRequest is ResizePtyRequest, in characters.
type ResizeRequest struct {
	ID     string
	ExecID string
	Width  uint32
	Height uint32
}

// Fields lists the fields of ResizePtyRequest.
func (m *ResizeRequest) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	c.String(2, &m.ExecID)
	wire.Uint(c, 3, &m.Width)
	wire.Uint(c, 4, &m.Height)
}

// StateResponse says what a process is doing.
type StateResponse struct {
	ID         string
	Bundle     string
	Pid        uint32
	Status     Status
	Stdin      string
	Stdout     string
	Stderr     string
	Terminal   bool
	ExitStatus uint32
	ExitedAt   *Timestamp
	ExecID     string
}

// Fields lists the fields of StateResponse.
func (m *StateResponse) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	c.String(2, &m.Bundle)
	wire.Uint(c, 3, &m.Pid)
	wire.Uint(c, 4, &m.Status)
	c.String(5, &m.Stdin)
	c.String(6, &m.Stdout)
	c.String(7, &m.Stderr)
	c.Bool(8, &m.Terminal)
	wire.Uint(c, 9, &m.ExitStatus)
	wire.Optional(c, 10, &m.ExitedAt)
	c.String(11, &m.ExecID)
}

// KillRequest asks for a signal, to all processes of the container with All.
type KillRequest struct {
	ID     string
	ExecID string
	Signal uint32
	All    bool
}

// Fields lists the fields of KillRequest.
func (m *KillRequest) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	c.String(2, &m.ExecID)
	wire.Uint(c, 3, &m.Signal)
	c.Bool(4, &m.All)
}

// CloseIORequest asks for the end of a process's stdin.
type CloseIORequest struct {
	ID     string
	ExecID string
	Stdin  bool
}

// Fields lists the fields of CloseIORequest.
func (m *CloseIORequest) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	c.String(2, &m.ExecID)
	c.Bool(3, &m.Stdin)
}

// ProcessInfo is one process of a container. Info is ProcessDetails for an exec.
type ProcessInfo struct {
	Pid  uint32
	Info *Any
}

// Fields lists the fields of containerd.v1.types.ProcessInfo.
func (m *ProcessInfo) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.Pid)
	wire.Optional(c, 2, &m.Info)
}

// ProcessDetails is containerd.runc.v1.ProcessDetails.
type ProcessDetails struct{ ExecID string }

// ProcessDetailsType is its type URL.
const ProcessDetailsType = "containerd.runc.v1.ProcessDetails"

// Fields lists the fields of ProcessDetails.
func (m *ProcessDetails) Fields(c *wire.Codec) { c.String(1, &m.ExecID) }

// PidsResponse has every process of a container, in the host's pid namespace.
type PidsResponse struct{ Processes []ProcessInfo }

// Fields lists the fields of PidsResponse.
func (m *PidsResponse) Fields(c *wire.Codec) { wire.Repeated(c, 1, &m.Processes) }

// UpdateRequest is UpdateTaskRequest. Resources holds OCI LinuxResources as JSON.
type UpdateRequest struct {
	ID          string
	Resources   *Any
	Annotations map[string]string
}

// Fields lists the fields of UpdateTaskRequest.
func (m *UpdateRequest) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	wire.Optional(c, 2, &m.Resources)
	c.Map(3, &m.Annotations)
}

// CheckpointRequest is CheckpointTaskRequest.
type CheckpointRequest struct {
	ID      string
	Path    string
	Options *Any
}

// Fields lists the fields of CheckpointTaskRequest.
func (m *CheckpointRequest) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	c.String(2, &m.Path)
	wire.Optional(c, 3, &m.Options)
}

// CheckpointOptions are containerd.runc.v1.CheckpointOptions.
type CheckpointOptions struct {
	Exit            bool
	OpenTCP         bool
	ExternalSockets bool
	Terminal        bool // the session of who started it is kept, too
	FileLocks       bool
	EmptyNamespaces []string
	CgroupsMode     string
	ImagePath       string
	WorkPath        string
	ParentPath      string
}

// CheckpointOptionsType is the type URL of CheckpointOptions.
const CheckpointOptionsType = "containerd.runc.v1.CheckpointOptions"

// Fields lists the fields of containerd.runc.v1.CheckpointOptions.
func (m *CheckpointOptions) Fields(c *wire.Codec) {
	c.Bool(1, &m.Exit)
	c.Bool(2, &m.OpenTCP)
	c.Bool(3, &m.ExternalSockets)
	c.Bool(4, &m.Terminal)
	c.Bool(5, &m.FileLocks)
	c.Strings(6, &m.EmptyNamespaces)
	c.String(7, &m.CgroupsMode)
	c.String(8, &m.ImagePath)
	c.String(9, &m.WorkPath)
	c.String(10, &m.ParentPath)
}

// WaitResponse says how a process ended.
type WaitResponse struct {
	ExitStatus uint32
	ExitedAt   *Timestamp
}

// Fields lists the fields of WaitResponse.
func (m *WaitResponse) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.ExitStatus)
	wire.Optional(c, 2, &m.ExitedAt)
}

// StatsResponse holds the metrics of a container's cgroup.
type StatsResponse struct{ Stats *Any }

// Fields lists the fields of StatsResponse.
func (m *StatsResponse) Fields(c *wire.Codec) { wire.Optional(c, 1, &m.Stats) }

// ConnectResponse names the shim and its task.
type ConnectResponse struct {
	ShimPid uint32
	TaskPid uint32
	Version string
}

// Fields lists the fields of ConnectResponse.
func (m *ConnectResponse) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.ShimPid)
	wire.Uint(c, 2, &m.TaskPid)
	c.String(3, &m.Version)
}

// ShutdownRequest asks the shim to end when it has no task.
type ShutdownRequest struct {
	ID  string
	Now bool
}

// Fields lists the fields of ShutdownRequest.
func (m *ShutdownRequest) Fields(c *wire.Codec) {
	c.String(1, &m.ID)
	c.Bool(2, &m.Now)
}
