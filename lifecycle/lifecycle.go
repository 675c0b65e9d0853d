package lifecycle

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	diffapi "github.com/containerd/containerd/api/services/diff/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	mountsapi "github.com/containerd/containerd/api/services/mounts/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	sandboxapi "github.com/containerd/containerd/api/services/sandbox/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	ttrpcevents "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	versionapi "github.com/containerd/containerd/api/services/version/v1"
	"github.com/containerd/ttrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthapi "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/gantryd/gantry/lifecycle/internal/direct"
	"github.com/gantryd/gantry/lifecycle/internal/exchange"
	meta "github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/lifecycle/internal/shims"
	"github.com/gantryd/gantry/store/content/local"
	"github.com/gantryd/gantry/store/snapshot"
	"github.com/gantryd/gantry/store/snapshot/disk"
)

// Config says where a Lifecycle keeps its things and what it tells its shims.
type Config struct {
	Root  string // data that outlives a boot, with containerd's layout
	State string // what a boot forgets: bundles of tasks, with containerd's layout
	// Address is the path of the gRPC socket, as shims are told it; the ttrpc
	// socket to which they send their events is Address+".ttrpc".
	Address string
	// ShimDirs are searched for shim binaries before PATH.
	ShimDirs []string
	// InsecureRegistries are hosts that a pull or push by the transfer service may
	// speak to over plain HTTP or with unverified TLS, beside loopback.
	InsecureRegistries []string
	// RestartInterval is how often is looked after containers whose labels say that
	// they are to be restarted; 0 is 10 s, as containerd has it.
	RestartInterval time.Duration
	Debug           bool // shims are told to log what they do
	Log             *slog.Logger
}

// Lifecycle serves the containerd API.
type Lifecycle struct {
	cfg          Config
	uuid         string
	run          string // names this life of the daemon
	events       *exchange.Exchange
	db           *meta.DB
	shims        *shims.Table
	mounts       *mounts
	streams      *streams
	snapshotters map[string]snapshot.Snapshotter // by name
	direct       *direct.Conn
}

// The directories below root, with containerd's names.
const (
	contentDir   = "io.containerd.content.v1.content"
	metadataFile = "io.containerd.metadata.v1.bolt/meta.db"
	uuidFile     = "io.containerd.grpc.v1.introspection/uuid"
)

// snapshotsDir is where the snapshotter of that name is.
func snapshotsDir(root, name string) string {
	return filepath.Join(root, "io.containerd.snapshotter.v1."+name)
}

// New opens the stores, undoes what a killed predecessor left half-made, and
// begins to restore the shims that run. It does not wait for a shim that hangs.
func New(ctx context.Context, cfg Config) (_ *Lifecycle, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{cfg.Root, cfg.State} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("make directory: %w", err)
		}
	}
	l := &Lifecycle{cfg: cfg, run: rand.Text(), events: &exchange.Exchange{}, streams: newStreams()}
	if l.uuid, err = uuid(filepath.Join(cfg.Root, uuidFile)); err != nil {
		return nil, err
	}
	if err := undoMounts(filepath.Join(cfg.State, mountsDir)); err != nil {
		return nil, err
	}
	if err := l.openStores(ctx); err != nil {
		return nil, err
	}
	l.mounts = &mounts{dir: filepath.Join(cfg.State, mountsDir), root: cfg.Root, db: l.db, log: cfg.Log}
	l.db.AfterCollect(l.mounts.collect)
	l.shims, err = shims.New(shims.Config{
		Root: cfg.Root, State: cfg.State, Address: cfg.Address, ShimDirs: cfg.ShimDirs, Version: release(),
		Debug: cfg.Debug, Events: l.events, Record: l.record, Log: cfg.Log,
	})
	if err != nil {
		return nil, errors.Join(err, l.closeStores())
	}
	l.direct = direct.New(unaryErrors, streamErrors)
	l.register(l.direct)
	if err := l.shims.Restore(); err != nil {
		return nil, errors.Join(fmt.Errorf("restore tasks: %w", err), l.Close())
	}
	return l, nil
}

func (l *Lifecycle) openStores(ctx context.Context) (err error) {
	blobs, err := local.New(filepath.Join(l.cfg.Root, contentDir))
	if err != nil {
		return err
	}
	l.snapshotters = map[string]snapshot.Snapshotter{}
	for name, open := range map[string]func(root string) (*disk.Snapshotter, error){"overlayfs": disk.Overlay, "native": disk.Native} {
		s, err := open(snapshotsDir(l.cfg.Root, name))
		if err != nil {
			return errors.Join(err, l.closeStores())
		}
		l.snapshotters[name] = s
		torn, err := s.Torn()
		if err != nil {
			return errors.Join(err, l.closeStores())
		}
		if len(torn) > 0 {
			l.cfg.Log.Warn("the machine went down before the layers below these snapshots were on disk, files in them may be empty: they are not mounted. "+
				"Remove their containers and images, and pull the images again", "snapshotter", name, "snapshots", torn)
		}
	}
	l.db, err = meta.Open(filepath.Join(l.cfg.Root, metadataFile), blobs, l.snapshotters, l.events, l.cfg.Log)
	if err != nil {
		return errors.Join(err, l.closeStores())
	}
	if err := l.db.Repair(ctx); err != nil {
		return errors.Join(fmt.Errorf("repair metadata: %w", err), l.closeStores())
	}
	if err := sweepLeases(l.db); err != nil {
		return errors.Join(fmt.Errorf("delete leases of transfers that were cut off: %w", err), l.closeStores())
	}
	return nil
}

// record is what the databases have of a container or sandbox.
func (l *Lifecycle) record(ns, id string) shims.Record {
	if c, err := l.db.Containers(ns).Get(id); err == nil {
		return shims.Record{Runtime: c.Runtime.Name}
	}
	if sb, err := l.db.Sandboxes(ns).Get(id); err == nil {
		return shims.Record{Runtime: sb.Runtime.Name, Sandbox: true}
	}
	return shims.Record{}
}

// maxMessage is the largest gRPC message in bytes, as containerd has it; a client
// sends a container's whole spec in one.
const maxMessage = 16 << 20

// Serve answers gRPC on one listener and the shims' ttrpc on the other until ctx
// ends, and closes both. Containers run on.
func (l *Lifecycle) Serve(ctx context.Context, api, shims net.Listener) error {
	g := grpc.NewServer(
		grpc.UnaryInterceptor(unaryErrors), grpc.StreamInterceptor(streamErrors),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
	)
	l.register(g)
	t, err := ttrpc.NewServer()
	if err != nil {
		return errors.Join(err, api.Close(), shims.Close())
	}
	ttrpcevents.RegisterTTRPCEventsService(t, forwarder{l})

	monitored, endMonitor := context.WithCancel(ctx)
	var monitor sync.WaitGroup
	monitor.Go(func() { l.restarts().run(monitored) })
	defer monitor.Wait()
	defer endMonitor()
	done := make(chan error, 1)
	go func() { done <- t.Serve(context.WithoutCancel(ctx), shims) }()
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	err = g.Serve(api)
	err = errors.Join(err, t.Close())
	if terr := <-done; !errors.Is(terr, ttrpc.ErrServerClosed) {
		err = errors.Join(err, terr)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (l *Lifecycle) restarts() *restarts {
	every := l.cfg.RestartInterval
	if every == 0 {
		every = 10 * time.Second
	}
	return &restarts{db: l.db, tasks: &tasks{db: l.db, shims: l.shims, mounts: l.mounts}, every: every, log: l.cfg.Log}
}

// Conn is a connection for a client in this process: the services that Serve serves
// on the socket, with nothing marshalled (docs/decision/0007). It ends with Close.
func (l *Lifecycle) Conn() grpc.ClientConnInterface { return l.direct }

// register plugs every service in.
func (l *Lifecycle) register(g grpc.ServiceRegistrar) {
	containersapi.RegisterContainersServer(g, &containers{db: l.db, shims: l.shims})
	tasksapi.RegisterTasksServer(g, &tasks{db: l.db, shims: l.shims, mounts: l.mounts})
	contentapi.RegisterContentServer(g, &contents{db: l.db})
	snapshotsapi.RegisterSnapshotsServer(g, &snapshots{db: l.db})
	imagesapi.RegisterImagesServer(g, &images{db: l.db})
	leasesapi.RegisterLeasesServer(g, &leases{db: l.db})
	namespacesapi.RegisterNamespacesServer(g, &namespaces{db: l.db})
	eventsapi.RegisterEventsServer(g, &events{l: l})
	diffapi.RegisterDiffServer(g, &diffs{db: l.db})
	streamingapi.RegisterStreamingServer(g, l.streams)
	transferapi.RegisterTransferServer(g, &transfers{db: l.db, run: l.run, streams: l.streams, insecure: l.cfg.InsecureRegistries})
	introspectionapi.RegisterIntrospectionServer(g, &introspection{l: l})
	versionapi.RegisterVersionServer(g, versions{})
	sandboxapi.RegisterStoreServer(g, &sandboxStore{db: l.db})
	sandboxapi.RegisterControllerServer(g, &sandboxController{db: l.db, shims: l.shims, events: l.events})
	mountsapi.RegisterMountsServer(g, l.mounts)
	healthapi.RegisterHealthServer(g, health.NewServer())
}

// Close lets go of the stores and of the connections to shims. Containers run on.
func (l *Lifecycle) Close() error {
	l.direct.Close()
	l.shims.Close()
	return l.closeStores()
}

func (l *Lifecycle) closeStores() (err error) {
	if l.db != nil {
		err = l.db.Close()
	}
	for _, s := range l.snapshotters {
		err = errors.Join(err, s.Close())
	}
	return err
}
