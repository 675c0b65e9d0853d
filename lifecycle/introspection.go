package lifecycle

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	api "github.com/containerd/containerd/api/services/introspection/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/internal/atomicfile"
	"github.com/gantryd/gantry/internal/filter"
)

// introspection is containerd.services.introspection.v1.Introspection.
type introspection struct {
	api.UnimplementedIntrospectionServer
	l *Lifecycle
}

// plugins is what of containerd's plugins there is here, under containerd's names.
// Clients look here for snapshotters, and for what the daemon can do.
func (i *introspection) plugins() []*api.Plugin {
	root := i.l.cfg.Root
	p := platforms.DefaultSpec()
	here := []*types.Platform{{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant}}
	list := []*api.Plugin{
		{Type: "io.containerd.content.v1", ID: "content", Exports: map[string]string{"root": filepath.Join(root, contentDir)}},
		{Type: "io.containerd.metadata.v1", ID: "bolt", Exports: map[string]string{"root": filepath.Dir(filepath.Join(root, metadataFile))}},
		{
			Type: "io.containerd.snapshotter.v1", ID: "overlayfs", Platforms: here, Capabilities: []string{"rebase"},
			Exports: map[string]string{"root": snapshotsDir(root, "overlayfs")},
		},
		{Type: "io.containerd.snapshotter.v1", ID: "native", Platforms: here, Exports: map[string]string{"root": snapshotsDir(root, "native")}},
		{Type: "io.containerd.differ.v1", ID: "walking", Platforms: here},
		{Type: "io.containerd.event.v1", ID: "exchange"},
		{Type: "io.containerd.gc.v1", ID: "scheduler"},
		{Type: "io.containerd.monitor.container.v1", ID: "restart", Capabilities: restartPolicies},
		{Type: "io.containerd.lease.v1", ID: "manager"},
		{Type: "io.containerd.sandbox.controller.v1", ID: "shim"},
		{Type: "io.containerd.sandbox.store.v1", ID: "local"},
		{Type: "io.containerd.streaming.v1", ID: "manager"},
		{Type: "io.containerd.transfer.v1", ID: "local"},
		{Type: "io.containerd.runtime.v2", ID: "task", Platforms: here, Exports: map[string]string{"log-uri-schemes": "fifo,binary,file"}},
	}
	for _, id := range []string{
		"containers", "content", "diff", "events", "healthcheck", "images", "introspection", "leases", "mounts",
		"namespaces", "sandbox-controllers", "sandboxes", "snapshots", "streaming", "tasks", "transfer", "version",
	} {
		list = append(list, &api.Plugin{Type: "io.containerd.grpc.v1", ID: id})
	}
	return list
}

func (i *introspection) Plugins(_ context.Context, r *api.PluginsRequest) (*api.PluginsResponse, error) {
	f, err := filter.Parse(r.Filters...)
	if err != nil {
		return nil, err
	}
	var resp api.PluginsResponse
	for _, p := range i.plugins() {
		if f.Match(pluginFields(p)) {
			resp.Plugins = append(resp.Plugins, p)
		}
	}
	return &resp, nil
}

func pluginFields(p *api.Plugin) filter.Fields {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "type":
			return p.Type, true
		case "id":
			return p.ID, true
		case "platforms":
			var all []string
			for _, pl := range p.Platforms {
				all = append(all, pl.OS+"/"+pl.Architecture)
			}
			return strings.Join(all, ","), len(all) > 0
		case "capabilities":
			return strings.Join(p.Capabilities, ","), len(p.Capabilities) > 0
		}
		return "", false
	}
}

func (i *introspection) Server(context.Context, *emptypb.Empty) (*api.ServerResponse, error) {
	resp := &api.ServerResponse{UUID: i.l.uuid, Pid: uint64(os.Getpid())}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/pid", &st); err != nil {
		return nil, fmt.Errorf("read PID namespace: %w", err)
	}
	resp.Pidns = st.Ino
	return resp, nil
}

// PluginInfo gives one plugin. Of the task plugin, the options name a runtime whose
// shim is asked about itself.
func (i *introspection) PluginInfo(ctx context.Context, r *api.PluginInfoRequest) (*api.PluginInfoResponse, error) {
	for _, p := range i.plugins() {
		if p.Type != r.Type || p.ID != r.ID {
			continue
		}
		resp := &api.PluginInfoResponse{Plugin: p}
		if r.Options == nil {
			return resp, nil
		}
		var err error
		resp.Extra, err = i.runtimeInfo(ctx, p, r.Options)
		return resp, err
	}
	return nil, fmt.Errorf("plugin %s.%s: %w", r.Type, r.ID, errdefs.ErrNotFound)
}

func (i *introspection) runtimeInfo(ctx context.Context, p *api.Plugin, options *anypb.Any) (*anypb.Any, error) {
	v, err := typeurl.UnmarshalAny(options)
	if err != nil {
		return nil, fmt.Errorf("read options: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	req, ok := v.(*types.RuntimeRequest)
	if !ok || p.ID != "task" {
		return nil, fmt.Errorf("plugin %s.%s with options %T: %w", p.Type, p.ID, v, errdefs.ErrNotImplemented)
	}
	out, err := i.l.shims.Info(ctx, req.RuntimePath, req.Options)
	if err != nil {
		return nil, err
	}
	var info types.RuntimeInfo
	if err := proto.Unmarshal(out, &info); err != nil {
		return nil, fmt.Errorf("read what runtime %s says of itself: %w", req.RuntimePath, err)
	}
	return typeurl.MarshalAnyToProto(&info)
}

// uuid reads the identity of this root directory, or makes one.
func uuid(name string) (string, error) {
	data, err := os.ReadFile(name)
	if err == nil {
		return strings.TrimSpace(string(data)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read server UUID: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o711); err != nil {
		return "", fmt.Errorf("make server UUID: %w", err)
	}
	var b [16]byte
	rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // RFC 9562, version 4
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	return id, atomicfile.Write(name, []byte(id), 0o600)
}
