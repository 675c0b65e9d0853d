package criu

import "github.com/gantryd/gantry/internal/wire"

// Kind is what a message is about (criu_req_type of images/rpc.proto in CRIU).
type Kind int32

// The kinds that we send or are sent.
const (
	Dump         Kind = 1
	Restore      Kind = 2
	PreDump      Kind = 4
	notification Kind = 6
	featureCheck Kind = 9
)

// Mode is how CRIU deals with cgroups (criu_cg_mode).
type Mode int32

// Modes are the names of modes on the command line of a runtime; "" is CRIU's own.
var Modes = map[string]Mode{"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}

// Options are those of CRIU that a container needs (criu_opts). Descriptors are
// our own; CRIU opens them through /proc.
type Options struct {
	Images, Work int32 // directories; no Work is 0
	Pid          int32 // of the first process, for a dump
	Root         string
	LogFile      string // in Work, or in Images
	LogLevel     int32
	ConfigFile   string
	Parent       string // earlier images, relative to Images
	TrackMem     bool
	PageServer   *PageServer

	LeaveRunning, ExtUnixSockets, TCPEstablished, TCPSkipInFlight, ShellJob bool
	FileLocks, LinkRemap, AutoDedup, LazyPages, OrphanPtsMaster             bool
	EvasiveDevices, Sibling                                                 bool

	Mode          Mode
	FreezeCgroup  string
	CgroupRoots   []CgroupRoot
	EmptyNs       uint32     // CLONE_NEW* of what is made anew
	Mounts        []External // where in the container, and by what name
	External      []string   // other things of the host: "net[INODE]:NAME"
	InheritFds    []InheritFd
	JoinNs        []JoinNs
	LSMProfile    string
	LSMMountLabel string
}

// Fields lists the fields of criu_opts.
func (o *Options) Fields(c *wire.Codec) {
	always := true
	wire.Required(c, 1, &o.Images)
	wire.Uint(c, 2, &o.Pid)
	c.Bool(3, &o.LeaveRunning)
	c.Bool(4, &o.ExtUnixSockets)
	c.Bool(5, &o.TCPEstablished)
	c.Bool(6, &o.EvasiveDevices)
	c.Bool(7, &o.ShellJob)
	c.Bool(8, &o.FileLocks)
	wire.Uint(c, 9, &o.LogLevel)
	c.String(10, &o.LogFile)
	wire.Optional(c, 11, &o.PageServer)
	c.Bool(12, &always) // notify
	c.String(13, &o.Root)
	c.String(14, &o.Parent)
	c.Bool(15, &o.TrackMem)
	c.Bool(16, &o.AutoDedup)
	wire.Uint(c, 17, &o.Work)
	c.Bool(18, &o.LinkRemap)
	wire.Repeated(c, 23, &o.Mounts)
	c.Bool(24, &always) // manage_cgroups, which CRIU wants before it looks at the mode
	wire.Repeated(c, 25, &o.CgroupRoots)
	c.Bool(26, &o.Sibling)
	wire.Repeated(c, 27, &o.InheritFds)
	wire.Required(c, 34, &o.Mode)
	c.Strings(37, &o.External)
	wire.Uint(c, 38, &o.EmptyNs)
	wire.Repeated(c, 39, &o.JoinNs)
	c.String(44, &o.FreezeCgroup)
	c.Bool(46, &o.TCPSkipInFlight)
	c.Bool(48, &o.LazyPages)
	c.Bool(50, &o.OrphanPtsMaster)
	c.String(51, &o.ConfigFile)
	c.String(53, &o.LSMProfile)
	c.String(63, &o.LSMMountLabel)
}

// PageServer is where memory goes, or comes from (criu_page_server_info).
type PageServer struct {
	Address string
	Port    int32
}

// Fields lists the fields of criu_page_server_info.
func (p *PageServer) Fields(c *wire.Codec) {
	c.String(1, &p.Address)
	wire.Uint(c, 2, &p.Port)
}

// External is a mount of the host (ext_mount_map). For a dump Key is where it is
// in the container and Value its name in the images; for a restore Key is that
// name, and Value what of the host it is.
type External struct{ Key, Value string }

// Fields lists the fields of ext_mount_map.
func (e *External) Fields(c *wire.Codec) {
	c.String(1, &e.Key)
	c.String(2, &e.Value)
}

// InheritFd puts a descriptor of CRIU's in the place of what has a name in the
// images (inherit_fd).
type InheritFd struct {
	Name string
	FD   int32
}

// Fields lists the fields of inherit_fd.
func (i *InheritFd) Fields(c *wire.Codec) {
	c.String(1, &i.Name)
	wire.Required(c, 2, &i.FD)
}

// CgroupRoot is the group that the processes are restored below; no Controllers
// are all (cgroup_root).
type CgroupRoot struct{ Controllers, Path string }

// Fields lists the fields of cgroup_root.
func (r *CgroupRoot) Fields(c *wire.Codec) {
	c.String(1, &r.Controllers)
	c.String(2, &r.Path)
}

// JoinNs has the processes join a namespace (join_namespace).
type JoinNs struct{ Kind, Path string }

// Fields lists the fields of join_namespace.
func (j *JoinNs) Fields(c *wire.Codec) {
	c.String(1, &j.Kind)
	c.String(2, &j.Path)
}

// Features are what CRIU can do with this kernel (criu_features).
type Features struct{ MemTrack, LazyPages bool }

// Fields lists the fields of criu_features.
func (f *Features) Fields(c *wire.Codec) {
	c.Bool(1, &f.MemTrack)
	c.Bool(2, &f.LazyPages)
}

// request is criu_req.
type request struct {
	kind     Kind
	options  *Options
	agreed   bool
	features *Features
}

func (r *request) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &r.kind)
	wire.Optional(c, 2, &r.options)
	c.Bool(3, &r.agreed)
	wire.Optional(c, 5, &r.features)
}

// response is criu_resp.
type response struct {
	kind     Kind
	success  bool
	notify   *notify
	errno    int32
	features *Features
	message  string
}

func (r *response) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &r.kind)
	c.Bool(2, &r.success)
	wire.Optional(c, 5, &r.notify)
	wire.Uint(c, 7, &r.errno)
	wire.Optional(c, 8, &r.features)
	c.String(9, &r.message)
}

// notify is criu_notify.
type notify struct {
	script string
	pid    int32
}

func (n *notify) Fields(c *wire.Codec) {
	c.String(1, &n.script)
	wire.Uint(c, 2, &n.pid)
}
