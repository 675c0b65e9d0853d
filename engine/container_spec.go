package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	dockernet "github.com/moby/moby/api/types/network"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/gantryd/gantry/bundle"
	"github.com/gantryd/gantry/bundle/docker"
	"github.com/gantryd/gantry/internal/errs"
	ourmount "github.com/gantryd/gantry/internal/mount"
)

// specType and processType are the type URLs by which containerd passes the
// runtime spec's JSON.
const (
	specType    = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
	processType = "types.containerd.io/opencontainers/runtime-spec/1/Process"
)

// spec writes config.json.
func (c *containers) spec(rec record, id string, sb netSandbox, rootfs []ourmount.Mount, subs held) (*anypb.Any, error) {
	owner, rec, err := c.sharesEtc(id, rec)
	if err != nil {
		return nil, err
	}
	wishes, err := docker.Container(rec.Config, rec.HostConfig)
	if err != nil {
		return nil, invalidUnlessKnown(err)
	}
	wishes.ID, wishes.Rootfs = id, "rootfs"
	wishes.CgroupsPath = c.cgroupsPath(id, rec.HostConfig)
	wishes.AppArmorProfile = c.appArmor.profile(rec.HostConfig)
	wishes.SelinuxLabel, wishes.MountLabel = c.seLinux.of(rec)
	if err := c.namespaces(&wishes, rec, sb, subs); err != nil {
		return nil, err
	}
	dir := c.dir(owner)
	wishes.EtcHosts, wishes.EtcHostname = filepath.Join(dir, "hosts"), filepath.Join(dir, "hostname")
	wishes.EtcResolvConf = filepath.Join(dir, "resolv.conf")
	for i, p := range rec.Mounts {
		m := p.Mount()
		m.Source = subs.source(i, m.Source)
		wishes.Mounts = append(wishes.Mounts, m)
	}
	if rec.HostConfig.Init != nil && *rec.HostConfig.Init {
		if wishes.Init, err = initProgram(); err != nil {
			return nil, err
		}
	}
	root, err := layersOf(rootfs)
	if err != nil {
		return nil, err
	}
	s, err := bundle.Spec(wishes, root)
	if err != nil {
		return nil, invalidUnlessKnown(err)
	}
	return specAny(specType, s)
}

func specAny(typeURL string, v any) (*anypb.Any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	return &anypb.Any{TypeUrl: typeURL, Value: data}, nil
}

// layersOf gives the directories in which users are looked up.
func layersOf(rootfs []ourmount.Mount) (bundle.Root, error) {
	if len(rootfs) == 1 {
		if root, ok := bundle.RootOf(rootfs[0].Type, rootfs[0].Source, rootfs[0].Options); ok {
			return root, nil
		}
	}
	return nil, fmt.Errorf("root file system of %d mounts is not supported", len(rootfs))
}

// namespaces fills in those of other containers.
func (c *containers) namespaces(wishes *bundle.Container, rec record, sb netSandbox, subs held) error {
	wishes.ShmPath = subs.source(shm, wishes.ShmPath)
	wishes.Network.Path = sb.Path
	for _, ns := range []struct {
		kind string
		of   string
		to   *bundle.Namespace
	}{
		{"net", rec.HostConfig.NetworkMode.ConnectedContainer(), &wishes.Network},
		{"ipc", rec.HostConfig.IpcMode.Container(), &wishes.IPC},
		{"pid", rec.HostConfig.PidMode.Container(), &wishes.PID},
	} {
		if ns.of == "" {
			continue
		}
		pid, err := c.sharer(ns.of, ns.kind)
		if err != nil {
			return err
		}
		ns.to.Path = fmt.Sprintf("/proc/%d/ns/%s", pid, ns.kind)
	}
	return nil
}

// sharer finds the running container whose namespace is to be shared.
func (c *containers) sharer(ref, kind string) (pid int, err error) {
	other, err := c.find(ref)
	if err != nil {
		return 0, err
	}
	r := other.live()
	if r == nil || r.pid == 0 {
		return 0, conflict("cannot join %s namespace of a non running container: %s", kind, other.id)
	}
	return r.pid, nil
}

// sharesEtc gives the container whose files of /etc are used, and rec with its
// name: those of the other one where the network is shared.
func (c *containers) sharesEtc(id string, rec record) (owner string, named record, err error) {
	ref := rec.HostConfig.NetworkMode.ConnectedContainer()
	if ref == "" {
		return id, rec, nil
	}
	other, err := c.find(ref)
	if err != nil {
		return "", record{}, err
	}
	theirs, cfg := other.snapshot().Config, *rec.Config
	cfg.Hostname, cfg.Domainname = theirs.Hostname, theirs.Domainname
	rec.Config = &cfg
	return other.id, rec, nil
}

// writeEtc writes the files of /etc that the network decides.
func (c *containers) writeEtc(id string, rec record, sb netSandbox) error {
	if rec.HostConfig.NetworkMode.IsContainer() {
		owner, _, err := c.sharesEtc(id, rec)
		if err != nil {
			return err
		}
		return c.seLinux.relabelEtc(c.dir(owner), rec.MountLabel, true)
	}
	dir := c.dir(id)
	for _, f := range []struct {
		name    string
		content []byte
	}{
		{"hosts", sb.Hosts}, {"resolv.conf", sb.Resolv}, {"hostname", []byte(rec.Config.Hostname + "\n")},
	} {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, 0o644); err != nil {
			return fmt.Errorf("write /etc/%s of %s: %w", f.name, id, err)
		}
	}
	return c.seLinux.relabelEtc(dir, rec.MountLabel, false)
}

// rewriteEtc writes the files of /etc again after the networks of a container that
// runs have changed. What the container itself has written there stays.
func (c *containers) rewriteEtc(k *ctr, before record) error {
	rec := k.snapshot()
	old, err := c.networks.files(wish(k.id, before), before.Endpoints)
	if err != nil {
		return err
	}
	fresh, err := c.networks.files(wish(k.id, rec), rec.Endpoints)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		name     string
		was, now []byte
	}{{"hosts", old.Hosts, fresh.Hosts}, {"resolv.conf", old.Resolv, fresh.Resolv}} {
		path := filepath.Join(c.dir(k.id), f.name)
		is, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(is, f.was) {
			continue
		}
		// In place: the file is mounted in the container.
		if err := os.WriteFile(path, f.now, 0o644); err != nil {
			return fmt.Errorf("write /etc/%s of %s: %w", f.name, k.id, err)
		}
	}
	return nil
}

// wish is what the container id wants of the network.
func wish(id string, rec record) netWish {
	return netWish{
		ID: id, Name: rec.Name, Hostname: rec.Config.Hostname, Domainname: rec.Config.Domainname,
		Mode: rec.HostConfig.NetworkMode, Endpoints: rec.clone().Endpoints,
		PortBindings: rec.HostConfig.PortBindings, Exposed: rec.Config.ExposedPorts,
		PublishAll: rec.HostConfig.PublishAllPorts,
		DNS:        rec.HostConfig.DNS, DNSSearch: rec.HostConfig.DNSSearch, DNSOptions: rec.HostConfig.DNSOptions,
		ExtraHosts: rec.HostConfig.ExtraHosts,
	}
}

// sandbox makes the network of k, unless it is another container's.
func (c *containers) sandbox(ctx context.Context, id string, rec record) (netSandbox, error) {
	if rec.HostConfig.NetworkMode.IsContainer() {
		return netSandbox{}, nil
	}
	return c.networks.up(ctx, wish(id, rec))
}

// clearEndpoint takes away what a network gave to a container that ran. A MAC
// address that was not made from the IPv4 address was the user's wish, and stays.
func clearEndpoint(ep *dockernet.EndpointSettings) {
	mac := ep.MacAddress
	if ip := ep.IPAddress; ip.Is4() && bytes.Equal(mac, append([]byte{0x02, 0x42}, ip.AsSlice()...)) {
		mac = nil
	}
	*ep = dockernet.EndpointSettings{
		MacAddress: mac,
		IPAMConfig: ep.IPAMConfig, Links: ep.Links, Aliases: ep.Aliases, DriverOpts: ep.DriverOpts,
		GwPriority: ep.GwPriority, NetworkID: ep.NetworkID, DNSNames: ep.DNSNames,
	}
}

// makeVolumes makes the volumes that k mounts, and fills in their names and places.
func (c *containers) makeVolumes(ctx context.Context, k *ctr) error {
	points := k.rec.Mounts
	changed := false
	for i := range points {
		p := &points[i]
		if p.Type != mount.TypeVolume {
			continue
		}
		v, err := c.volumes.ensure(ctx, volumeUse{Name: p.Name, Driver: p.Driver, Options: p.Options, Labels: p.Labels})
		if err != nil {
			return err
		}
		p.Name, p.Driver, p.Source = v.Name, v.Driver, v.Path
		changed = true
		if v.New && !p.NoCopy {
			if err := c.copyUp(ctx, k, *p); err != nil {
				return err
			}
		}
	}
	if !changed {
		return nil
	}
	return c.persist(ctx, k, nil)
}

// mountVolumes makes volumes and bind sources ready for a start, or leaves nothing
// mounted.
func (c *containers) mountVolumes(ctx context.Context, k *ctr, rec record) (_ held, err error) {
	subs := held{}
	defer errs.Undo(&err, func() error {
		return errors.Join(subs.close(), c.unmountVolumes(ctx, k))
	})
	for i, p := range rec.Mounts {
		switch p.Type {
		case mount.TypeVolume:
			dir, err := c.volumes.mount(ctx, p.Name, k.id)
			if err != nil {
				return nil, err
			}
			if err := c.seLinux.relabelPoint(p, dir, rec.MountLabel); err != nil {
				return nil, err
			}
			if p.Subpath == "" {
				continue
			}
			at, err := c.hold(k.id, i, dir, p.Subpath)
			if err != nil {
				return nil, err
			}
			subs[i] = at
		case mount.TypeBind:
			if err := bindSource(p); err != nil {
				return nil, err
			}
			if err := c.seLinux.relabelPoint(p, p.Source, rec.MountLabel); err != nil {
				return nil, err
			}
		}
	}
	return subs, nil
}

// bindSource makes sure that the source of a bind is there.
func bindSource(p docker.Point) error {
	_, err := os.Stat(p.Source)
	if !os.IsNotExist(err) {
		return nil // the mount itself tells what else is wrong
	}
	if !p.CreateSource {
		return invalid("invalid mount config for type \"bind\": bind source path does not exist: %s", p.Source)
	}
	if err := os.MkdirAll(p.Source, 0o755); err != nil {
		return fmt.Errorf("make source of mount %s: %w", p.Source, err)
	}
	return nil
}

// unmountVolumes ends what mountVolumes began.
func (c *containers) unmountVolumes(ctx context.Context, k *ctr) error {
	for _, p := range k.snapshot().Mounts {
		if p.Type != mount.TypeVolume {
			continue
		}
		if err := c.volumes.unmount(ctx, p.Name, k.id); err != nil {
			return err
		}
	}
	return nil
}

// stockRuntime is the name of containerd's shim for OCI runtimes.
const stockRuntime = "io.containerd.runc.v2"

// The runtimes that a user may name beside containerd's names for them, each
// with the OCI runtime that the shim runs.
var ociRuntimes = []string{"runc", "crun", "gantry-runtime"}

// runtimeName is containerd's name for what --runtime says.
func (c *containers) runtimeName(wanted string) (string, error) {
	switch {
	case wanted == "" || wanted == "gantry":
		return c.cfg.Runtime, nil
	case strings.HasPrefix(wanted, "io.containerd.") || strings.HasPrefix(wanted, "/"):
		return wanted, nil
	}
	for _, name := range ociRuntimes {
		if wanted == name {
			return stockRuntime, nil
		}
	}
	return "", invalid("unknown or invalid runtime name: %s", wanted)
}

// runtimeOptions tell a shim that knows runc's options by which driver cgroups are
// made, and the stock one which OCI runtime to run.
func runtimeOptions(rec record, driver string) (*anypb.Any, error) {
	o := options.Options{SystemdCgroup: driver == Systemd}
	if wanted := rec.HostConfig.Runtime; wanted == "crun" || wanted == "gantry-runtime" {
		o.BinaryName = wanted
	}
	knows := rec.Runtime == ourRuntime || rec.Runtime == stockRuntime
	if !knows || o.BinaryName == "" && !o.SystemdCgroup {
		return nil, nil
	}
	data, err := proto.Marshal(&o)
	if err != nil {
		return nil, fmt.Errorf("encode runtime options: %w", err)
	}
	// The bare name is containerd's, without the host that proto's own has.
	return &anypb.Any{TypeUrl: "containerd.runc.v1.Options", Value: data}, nil
}

// initNames are where Debian and others put a static init.
var initNames = []string{"/usr/bin/docker-init", "/usr/libexec/docker/docker-init", "/usr/bin/tini-static", "/usr/sbin/docker-init"}

func initProgram() (string, error) {
	for _, name := range initNames {
		if _, err := os.Stat(name); err == nil {
			return name, nil
		}
	}
	return "", fmt.Errorf("find an init program: none of %s is there", strings.Join(initNames, ", "))
}

var _ container.Config
