package engine

import (
	"context"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	dockernet "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// inspection is container.InspectResponse with what API 1.52 took away.
type inspection struct {
	container.InspectResponse
	State           *inspectedState
	NetworkSettings *legacyNetwork
	HostnamePath    string
}

// inspectedState is container.State, whose Health is there only with a check.
type inspectedState = container.State

// legacyNetwork has the fields of the default bridge beside those of all networks.
type legacyNetwork struct {
	container.NetworkSettings
	Bridge                 string
	HairpinMode            bool
	LinkLocalIPv6Address   string
	LinkLocalIPv6PrefixLen int
	SecondaryIPAddresses   []string
	SecondaryIPv6Addresses []string
	EndpointID             string
	Gateway                string
	GlobalIPv6Address      string
	GlobalIPv6PrefixLen    int
	IPAddress              string
	IPPrefixLen            int
	IPv6Gateway            string
	MacAddress             string
}

// getInspect is GET /containers/{id}/json.
func (c *containers) getInspect(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	in := c.inspect(k)
	if boolValue(r, "size") {
		rw, err := c.usage(r.Context(), k.id)
		if err != nil {
			return err
		}
		total, err := c.totalSize(r.Context(), k.id)
		if err != nil {
			return err
		}
		in.SizeRw, in.SizeRootFs = &rw, &total
	}
	return replyJSON(w, http.StatusOK, in)
}

// inspect says all that is known of k.
func (c *containers) inspect(k *ctr) inspection {
	rec := k.snapshot()
	args := slices.Concat(rec.Config.Entrypoint, rec.Config.Cmd)
	host := *rec.HostConfig
	if owner, named, err := c.sharesEtc(k.id, rec); err == nil && owner != k.id {
		rec = named
		host.NetworkMode = container.NetworkMode("container:" + owner)
	}
	dir := c.dir(k.id)
	in := inspection{
		InspectResponse: container.InspectResponse{
			ID: k.id, Created: rec.Created.Format(time.RFC3339Nano),
			Path: args[0], Args: append([]string{}, args[1:]...),
			Image: rec.ImageID.String(), Name: "/" + rec.Name, RestartCount: rec.State.RestartCount,
			ResolvConfPath: filepath.Join(dir, "resolv.conf"), HostsPath: filepath.Join(dir, "hosts"),
			LogPath: rec.LogPath, Driver: c.cfg.Snapshotter, Platform: "linux",
			ExecIDs: c.execs.of(k.id), HostConfig: &host, Config: rec.Config,
			GraphDriver:             &storage.DriverData{Name: c.cfg.Snapshotter, Data: map[string]string{}},
			ImageManifestDescriptor: rec.Manifest,
			AppArmorProfile:         c.appArmor.profile(&host), ProcessLabel: rec.ProcessLabel, MountLabel: rec.MountLabel,
		},
		HostnamePath:    filepath.Join(dir, "hostname"),
		State:           k.inspectState(rec),
		NetworkSettings: networkSettings(k.id, rec),
	}
	in.Mounts = shownMounts(rec)
	return in
}

// shownMounts are the mounts in the API's words. Those of --tmpfs are told in the
// HostConfig alone.
func shownMounts(rec record) []container.MountPoint {
	ms := []container.MountPoint{}
	for _, p := range rec.Mounts {
		if _, short := rec.HostConfig.Tmpfs[p.Destination]; !short || p.Type != mount.TypeTmpfs {
			ms = append(ms, p.MountPoint)
		}
	}
	return ms
}

func (k *ctr) inspectState(rec record) *container.State {
	s := rec.State
	st := &container.State{
		Status: rec.status(), Running: s.Phase == running || s.Phase == restarting,
		Paused: s.Paused, Restarting: s.Phase == restarting, OOMKilled: s.OOMKilled, Dead: s.Dead,
		ExitCode: s.ExitCode, Error: s.Error,
		StartedAt: formatTime(s.StartedAt), FinishedAt: formatTime(s.FinishedAt), Health: rec.Health,
	}
	if r := k.live(); r != nil {
		st.Pid = r.pid
	}
	return st
}

// formatTime is Docker's way to write times; none is the year 1.
func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// networkSettings tells the sandbox, and again in the old fields what the default
// bridge gave.
func networkSettings(id string, rec record) *legacyNetwork {
	n := &legacyNetwork{NetworkSettings: container.NetworkSettings{
		Ports: dockernet.PortMap{}, Networks: rec.Endpoints, SandboxKey: rec.SandboxKey,
	}}
	if n.Networks == nil {
		n.Networks = map[string]*dockernet.EndpointSettings{}
	}
	if rec.State.Phase == running {
		n.SandboxID = id
		for port := range rec.Config.ExposedPorts {
			n.Ports[port] = nil
		}
		for port, bindings := range rec.Ports {
			n.Ports[port] = bindings
		}
	}
	if ep := rec.Endpoints[dockernet.NetworkBridge]; ep != nil {
		n.EndpointID, n.MacAddress = ep.EndpointID, ep.MacAddress.String()
		n.Gateway, n.IPAddress, n.IPPrefixLen = addr(ep.Gateway), addr(ep.IPAddress), ep.IPPrefixLen
		n.IPv6Gateway, n.GlobalIPv6Address, n.GlobalIPv6PrefixLen = addr(ep.IPv6Gateway), addr(ep.GlobalIPv6Address), ep.GlobalIPv6PrefixLen
	}
	return n
}

// addr writes an address, "" where there is none.
func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// usage is what the container itself wrote, in bytes.
func (c *containers) usage(ctx context.Context, id string) (int64, error) {
	resp, err := c.ctrd.Snapshots.Usage(ctx, &snapshotsapi.UsageRequest{Snapshotter: c.cfg.Snapshotter, Key: id})
	if err != nil {
		return 0, err
	}
	return resp.Size, nil
}

// totalSize is usage with all layers below it.
func (c *containers) totalSize(ctx context.Context, key string) (int64, error) {
	var total int64
	for key != "" {
		size, err := c.usage(ctx, key)
		if err != nil {
			return 0, err
		}
		total += size
		resp, err := c.ctrd.Snapshots.Stat(ctx, &snapshotsapi.StatSnapshotRequest{Snapshotter: c.cfg.Snapshotter, Key: key})
		if err != nil {
			return 0, err
		}
		key = resp.Info.Parent
	}
	return total, nil
}
