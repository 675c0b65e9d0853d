package engine

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"

	"google.golang.org/grpc"

	"github.com/gantryd/gantry/engine/internal/ctrd"
	"github.com/gantryd/gantry/internal/errs"
)

// Config says where an engine keeps its things and whom it asks.
type Config struct {
	Root  string // data that outlives a boot: container files, volumes, networks
	State string // what a boot forgets: attach sockets, network namespaces, fifos
	// ContainerdAddress is the unix socket of lifecycle or of any containerd.
	ContainerdAddress string
	// Containerd, where it is given, is the same within this process.
	Containerd  grpc.ClientConnInterface `json:"-"`
	Namespace   string                   // containerd namespace; "moby" unless told
	Snapshotter string                   // "overlayfs" unless told
	// Runtime is the containerd runtime name for containers that ask for none.
	Runtime string // "io.containerd.gantry.v2" unless told
	// CgroupDriver makes containers' cgroups: "cgroupfs", or "systemd", which then is
	// process 1. "cgroupfs" unless told.
	CgroupDriver string
	// SELinux gives containers labels, where the machine has SELinux.
	SELinux bool
	// ShimBinary is the absolute path of containerd-shim-gantry-v2, used as the
	// logger of every container (see api/stdio).
	ShimBinary string
	// Bridge is the name of the default bridge device, "gantry0" unless told, and
	// BridgeSubnet its IPv4 prefix, "172.17.0.0/16" unless told or taken.
	Bridge       string
	BridgeSubnet string
	// PublishAddress is the host address of a published port that names none,
	// "0.0.0.0" unless told.
	PublishAddress string
	// InsecureRegistries are hosts that may be spoken to over plain HTTP or with
	// unverified TLS, beside loopback.
	InsecureRegistries []string
	Debug              bool
	Log                *slog.Logger
}

// defaultSubnet is that of the default bridge. If it is taken, another one is.
const defaultSubnet = "172.17.0.0/16"

func (c Config) withDefaults() Config {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&c.Root, "/var/lib/gantry")
	set(&c.State, "/run/gantry")
	set(&c.ContainerdAddress, c.State+"/containerd.sock")
	set(&c.Namespace, "moby")
	set(&c.Snapshotter, "overlayfs")
	set(&c.Runtime, ourRuntime)
	set(&c.CgroupDriver, Cgroupfs)
	set(&c.Bridge, "gantry0")
	set(&c.BridgeSubnet, defaultSubnet)
	set(&c.PublishAddress, "0.0.0.0")
	if c.Log == nil {
		c.Log = slog.Default()
	}
	return c
}

// Engine serves the Docker Engine API.
type Engine struct {
	cfg    Config
	ctrd   *ctrd.Client
	router *router

	events     *events
	containers *containers
	execs      *execs
	images     *images
	networks   *networks
	volumes    *volumes
	system     *system

	stop context.CancelFunc // ends what runs beside the requests
}

// New connects to containerd, restores the containers that run, and is then
// ready to serve. It does not wait for a container or shim that hangs.
func New(ctx context.Context, cfg Config) (_ *Engine, err error) {
	cfg = cfg.withDefaults()
	if err := checkDriver(cfg.CgroupDriver); err != nil {
		return nil, err
	}
	client, err := connect(cfg)
	if err != nil {
		return nil, err
	}
	defer errs.Undo(&err, client.Close)

	// What outlives a request ends with the engine, not with ctx.
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer errs.Undo(&err, func() error { stop(); return nil })

	e := &Engine{cfg: cfg, ctrd: client, stop: stop, events: newEvents()}
	e.containers = newContainers(life, cfg, client, e.events)
	if e.images, err = newImages(ctx, cfg, client, e.events, e.containers); err != nil {
		return nil, err
	}
	if e.volumes, err = newVolumes(cfg, e.events, e.containers); err != nil {
		return nil, err
	}
	if e.networks, err = newNetworks(ctx, cfg, e.events, e.containers); err != nil {
		return nil, err
	}
	defer errs.Undo(&err, func() error { return e.networks.close() })
	e.execs = newExecs(e.containers)
	e.containers.images, e.containers.volumes, e.containers.networks = e.images, e.volumes, e.networks
	e.containers.execs = e.execs
	e.system = newSystem(cfg, client, e.events, e.containers, e.images, e.networks, e.volumes)
	e.router = newRouter(e.routes())
	if err := e.containers.restore(ctx); err != nil {
		return nil, err
	}
	if err := e.images.sweepLeases(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

func connect(cfg Config) (*ctrd.Client, error) {
	if cfg.Containerd != nil {
		return ctrd.On(cfg.Containerd, cfg.Namespace), nil
	}
	return ctrd.Dial(cfg.ContainerdAddress, cfg.Namespace)
}

// routes is the whole API, noun by noun; each table stands at the head of its
// noun's file.
func (e *Engine) routes() []route {
	return slices.Concat(
		e.system.routes(),
		e.events.routes(),
		e.containers.routes(),
		e.execs.routes(),
		e.images.routes(),
		e.networks.routes(),
		e.volumes.routes(),
	)
}

// Serve answers on l until ctx ends, and returns when every request that can end
// has ended. Containers run on.
func (e *Engine) Serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: e, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Close lets go of what the engine holds open. Containers run on.
func (e *Engine) Close() error {
	e.stop()
	e.containers.settle()
	return errors.Join(e.networks.close(), e.ctrd.Close())
}
