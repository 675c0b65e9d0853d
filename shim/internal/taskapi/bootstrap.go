package taskapi

import "github.com/gantryd/gantry/internal/wire"

// BootstrapParams is what containerd 2.3 and later write to the stdin of `start`.
type BootstrapParams struct {
	InstanceID        string
	Namespace         string
	LogLevel          int32
	ContainerdVersion string
	TTRPCAddress      string
	GRPCAddress       string
	Binary            string
	Extensions        []Extension
	SocketDir         string
}

// Fields lists the fields of containerd.runtime.bootstrap.v1.BootstrapParams.
func (m *BootstrapParams) Fields(c *wire.Codec) {
	c.String(1, &m.InstanceID)
	c.String(2, &m.Namespace)
	wire.Uint(c, 3, &m.LogLevel)
	c.String(4, &m.ContainerdVersion)
	c.String(5, &m.TTRPCAddress)
	c.String(6, &m.GRPCAddress)
	c.String(7, &m.Binary)
	wire.Repeated(c, 8, &m.Extensions)
	c.String(9, &m.SocketDir)
}

// Extension carries what the core of BootstrapParams does not know.
type Extension struct{ Value *Any }

// Fields lists the fields of Extension.
func (m *Extension) Fields(c *wire.Codec) { wire.Optional(c, 1, &m.Value) }

// BootstrapResult is the answer on stdout.
type BootstrapResult struct {
	Version    int32
	Address    string
	Protocol   string
	Metadata   map[string]string
	Extensions []Extension
}

// Fields lists the fields of BootstrapResult that a shim without capabilities has.
func (m *BootstrapResult) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.Version)
	c.String(2, &m.Address)
	c.String(3, &m.Protocol)
	c.Map(5, &m.Metadata)
	wire.Repeated(c, 6, &m.Extensions)
}

// Options is containerd.runc.v1.Options: how containerd's clients choose and
// set up a runtime.
type Options struct {
	NoPivotRoot   bool
	NoNewKeyring  bool
	ShimCgroup    string
	IOUid         uint32
	IOGid         uint32
	BinaryName    string
	Root          string
	SystemdCgroup bool
	CriuImagePath string
	CriuWorkPath  string
}

// OptionsType is the type URL of Options.
const OptionsType = "containerd.runc.v1.Options"

// Fields lists the fields of containerd.runc.v1.Options.
func (m *Options) Fields(c *wire.Codec) {
	c.Bool(1, &m.NoPivotRoot)
	c.Bool(2, &m.NoNewKeyring)
	c.String(3, &m.ShimCgroup)
	wire.Uint(c, 4, &m.IOUid)
	wire.Uint(c, 5, &m.IOGid)
	c.String(6, &m.BinaryName)
	c.String(7, &m.Root)
	c.Bool(9, &m.SystemdCgroup)
	c.String(10, &m.CriuImagePath)
	c.String(11, &m.CriuWorkPath)
}

// TOMLOptions is runtimeoptions.v1.Options: options of a runtime that the daemon
// does not know, as a document or the path of one.
type TOMLOptions struct {
	Type string
	Path string
	Body []byte
}

// TOMLOptionsType is the type URL of TOMLOptions.
const TOMLOptionsType = "runtimeoptions.v1.Options"

// Fields lists the fields of runtimeoptions.v1.Options.
func (m *TOMLOptions) Fields(c *wire.Codec) {
	c.String(1, &m.Type)
	c.String(2, &m.Path)
	c.Bytes(3, &m.Body)
}

// RuntimeInfo is containerd.types.RuntimeInfo, the answer of `-info`.
type RuntimeInfo struct {
	Name        string
	Version     *RuntimeVersion
	Options     *Any
	Features    *Any
	Annotations map[string]string
}

// Fields lists the fields of RuntimeInfo.
func (m *RuntimeInfo) Fields(c *wire.Codec) {
	c.String(1, &m.Name)
	wire.Optional(c, 2, &m.Version)
	wire.Optional(c, 3, &m.Options)
	wire.Optional(c, 4, &m.Features)
	c.Map(5, &m.Annotations)
}

// RuntimeVersion is containerd.types.RuntimeVersion.
type RuntimeVersion struct {
	Version  string
	Revision string
}

// Fields lists the fields of RuntimeVersion.
func (m *RuntimeVersion) Fields(c *wire.Codec) {
	c.String(1, &m.Version)
	c.String(2, &m.Revision)
}

// RuntimeRequest is containerd.types.RuntimeRequest, the question on the stdin of `-info`.
type RuntimeRequest struct {
	RuntimePath string
	Options     *Any
}

// Fields lists the fields of RuntimeRequest.
func (m *RuntimeRequest) Fields(c *wire.Codec) {
	c.String(1, &m.RuntimePath)
	wire.Optional(c, 2, &m.Options)
}
