package shim

import (
	"time"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/attach"
	"github.com/gantryd/gantry/shim/internal/logfile"
	"github.com/gantryd/gantry/shim/internal/metrics"
	"github.com/gantryd/gantry/shim/internal/taskapi"
	"github.com/gantryd/gantry/shim/internal/ttrpc"
)

// stateVersion changes when a shim could not go on with what an earlier one says. A
// field that it may do without is added without.
const stateVersion = 1

// state is all that a shim knows, for the program that takes over (handover.go). A
// file is the number of its descriptor, 0 for none.
type state struct {
	version    uint32
	config     Config
	server     ttrpc.State
	events     []taskapi.Envelope // not yet taken by the daemon
	listens    bool               // the reaper, for signals
	loggers    []uint64           // pids
	containers []containerState
	sandbox    *sandboxState
	execs      int64
}

func (m *state) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.version)
	field(c, 2, &m.server)
	wire.Repeated(c, 3, &m.events)
	c.Bool(4, &m.listens)
	c.Uints(5, &m.loggers)
	wire.Repeated(c, 6, &m.containers)
	wire.Optional(c, 7, &m.sandbox)
	wire.Uint(c, 8, &m.execs)
	field(c, 9, &m.config)
}

// Fields lists the fields of Config but for its socket, which is the server's.
func (cfg *Config) Fields(c *wire.Codec) {
	c.String(1, &cfg.ID)
	c.String(2, &cfg.Namespace)
	c.String(3, &cfg.Address)
	c.String(4, &cfg.TTRPCAddress)
	c.String(5, &cfg.Publisher)
	c.String(6, &cfg.SocketPath)
	c.Bool(7, &cfg.Debug)
}

// field is a message field that is always there.
func field[T any, P interface {
	*T
	wire.Message
}](c *wire.Codec, num int, p P) {
	q := (*T)(p)
	wire.Optional[T, P](c, num, &q)
}

type containerState struct {
	id, bundle string
	mounted    bool
	record     record
	uid, gid   uint32
	ownPids    bool
	cgroups    *metrics.Cgroups
	ooms       int32
	ended      bool
	oom        *metrics.OOMState
	init       processState
	execs      []processState
}

func (m *containerState) Fields(c *wire.Codec) {
	c.String(1, &m.id)
	c.String(2, &m.bundle)
	c.Bool(3, &m.mounted)
	field(c, 4, &m.record)
	wire.Uint(c, 5, &m.uid)
	wire.Uint(c, 6, &m.gid)
	c.Bool(7, &m.ownPids)
	wire.Optional(c, 8, &m.cgroups)
	wire.Uint(c, 9, &m.ooms)
	c.Bool(10, &m.ended)
	wire.Optional(c, 11, &m.oom)
	field(c, 12, &m.init)
	wire.Repeated(c, 13, &m.execs)
}

// Fields lists the fields of a record for the program that takes over; in the bundle
// it is JSON.
func (r *record) Fields(c *wire.Codec) {
	c.String(1, &r.ID)
	c.String(2, &r.Binary)
	c.String(3, &r.Root)
	c.Bool(4, &r.SystemdCgroup)
	c.Bool(5, &r.NoPivot)
	c.Bool(6, &r.NoNewKeyring)
	c.String(7, &r.Attach)
}

type processState struct {
	id          string
	uris        uris
	spec        []byte // of an exec that may still be started, as JSON
	status      taskapi.Status
	pid         int32
	exit        exitState
	sized       bool
	rows, cols  uint32
	connected   bool
	stdinClosed bool
	watched     bool
	done        bool
	console     int32
	streams     *streamsState
}

func (m *processState) Fields(c *wire.Codec) {
	c.String(1, &m.id)
	c.String(2, &m.uris.stdin)
	c.String(3, &m.uris.stdout)
	c.String(4, &m.uris.stderr)
	c.Bool(5, &m.uris.terminal)
	c.Bytes(6, &m.spec)
	wire.Uint(c, 7, &m.status)
	wire.Uint(c, 8, &m.pid)
	field(c, 9, &m.exit)
	c.Bool(10, &m.sized)
	wire.Uint(c, 11, &m.rows)
	wire.Uint(c, 12, &m.cols)
	c.Bool(13, &m.connected)
	c.Bool(14, &m.stdinClosed)
	c.Bool(15, &m.watched)
	c.Bool(16, &m.done)
	wire.Uint(c, 17, &m.console)
	wire.Optional(c, 18, &m.streams)
}

type exitState struct {
	status uint32
	at     int64 // in nanoseconds since 1970; 0 where it has not ended
}

func (m *exitState) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.status)
	wire.Uint(c, 2, &m.at)
}

func (e exit) state() exitState {
	if e.at.IsZero() {
		return exitState{}
	}
	return exitState{e.status, e.at.UnixNano()}
}

func (m exitState) exit() exit {
	if m.at == 0 {
		return exit{}
	}
	return exit{m.status, time.Unix(0, m.at)}
}

type streamsState struct {
	ours    []uint64
	stdin   int32
	console int32
	logger  int32
	log     int32
	attach  *attach.State
	outputs []outputState
	typed   *pumpState
}

func (m *streamsState) Fields(c *wire.Codec) {
	c.Uints(1, &m.ours)
	wire.Uint(c, 2, &m.stdin)
	wire.Uint(c, 3, &m.console)
	wire.Uint(c, 4, &m.logger)
	wire.Uint(c, 5, &m.log)
	wire.Optional(c, 6, &m.attach)
	wire.Repeated(c, 7, &m.outputs)
	wire.Optional(c, 8, &m.typed)
}

// outputState is one output that has not ended: a stream of ours, or a pump.
type outputState struct {
	src    int32
	stream uint32 // api/stdio's number
	log    *logfile.StreamState
	pump   *pumpState
}

func (m *outputState) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.src)
	wire.Uint(c, 2, &m.stream)
	wire.Optional(c, 3, &m.log)
	wire.Optional(c, 4, &m.pump)
}

type pumpState struct {
	src, dst int32
	rest     []byte
}

func (m *pumpState) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.src)
	wire.Uint(c, 2, &m.dst)
	c.Bytes(3, &m.rest)
}

type sandboxState struct {
	id      string
	created int64 // in nanoseconds since 1970
	pause   bool  // its process is the container of its id
	started bool
	ended   bool
	exit    exitState
}

func (m *sandboxState) Fields(c *wire.Codec) {
	c.String(1, &m.id)
	wire.Uint(c, 2, &m.created)
	c.Bool(3, &m.pause)
	c.Bool(4, &m.started)
	c.Bool(5, &m.ended)
	field(c, 6, &m.exit)
}
