package taskapi

import "github.com/gantryd/gantry/internal/wire"

// CreateSandboxRequest makes the sandbox of a pod.
type CreateSandboxRequest struct {
	SandboxID   string
	Bundle      string
	Rootfs      []Mount
	Options     *Any
	NetnsPath   string
	Annotations map[string]string
}

// Fields lists the fields of CreateSandboxRequest.
func (m *CreateSandboxRequest) Fields(c *wire.Codec) {
	c.String(1, &m.SandboxID)
	c.String(2, &m.Bundle)
	wire.Repeated(c, 3, &m.Rootfs)
	wire.Optional(c, 4, &m.Options)
	c.String(5, &m.NetnsPath)
	c.Map(6, &m.Annotations)
}

// SandboxRequest names a sandbox: the requests that say nothing else, and
// StopSandboxRequest, whose Number is seconds, and SandboxStatusRequest.
type SandboxRequest struct {
	SandboxID string
	Number    uint32
}

// Fields lists the fields of StartSandboxRequest and its like.
func (m *SandboxRequest) Fields(c *wire.Codec) {
	c.String(1, &m.SandboxID)
	wire.Uint(c, 2, &m.Number)
}

// StartSandboxResponse says which process is the sandbox.
type StartSandboxResponse struct {
	Pid       uint32
	CreatedAt *Timestamp
}

// Fields lists the fields of StartSandboxResponse.
func (m *StartSandboxResponse) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.Pid)
	wire.Optional(c, 2, &m.CreatedAt)
}

// PlatformResponse says what containers of the sandbox run on.
type PlatformResponse struct{ Platform *Platform }

// Fields lists the fields of PlatformResponse.
func (m *PlatformResponse) Fields(c *wire.Codec) { wire.Optional(c, 1, &m.Platform) }

// Platform is containerd.types.Platform.
type Platform struct {
	OS           string
	Architecture string
	Variant      string
	OSVersion    string
	OSFeatures   []string
}

// Fields lists the fields of Platform.
func (m *Platform) Fields(c *wire.Codec) {
	c.String(1, &m.OS)
	c.String(2, &m.Architecture)
	c.String(3, &m.Variant)
	c.String(4, &m.OSVersion)
	c.Strings(5, &m.OSFeatures)
}

// SandboxStatusResponse says how a sandbox is.
type SandboxStatusResponse struct {
	SandboxID string
	Pid       uint32
	State     string
	Info      map[string]string
	CreatedAt *Timestamp
	ExitedAt  *Timestamp
}

// Fields lists the fields of SandboxStatusResponse.
func (m *SandboxStatusResponse) Fields(c *wire.Codec) {
	c.String(1, &m.SandboxID)
	wire.Uint(c, 2, &m.Pid)
	c.String(3, &m.State)
	c.Map(4, &m.Info)
	wire.Optional(c, 5, &m.CreatedAt)
	wire.Optional(c, 6, &m.ExitedAt)
}

// SandboxMetricsResponse holds the metrics of a sandbox.
type SandboxMetricsResponse struct{ Metrics *Metric }

// Fields lists the fields of SandboxMetricsResponse.
func (m *SandboxMetricsResponse) Fields(c *wire.Codec) { wire.Optional(c, 1, &m.Metrics) }

// Metric is containerd.types.Metric.
type Metric struct {
	Timestamp *Timestamp
	ID        string
	Data      *Any
}

// Fields lists the fields of Metric.
func (m *Metric) Fields(c *wire.Codec) {
	wire.Optional(c, 1, &m.Timestamp)
	c.String(2, &m.ID)
	wire.Optional(c, 3, &m.Data)
}
