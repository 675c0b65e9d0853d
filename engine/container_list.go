package engine

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	dockernet "github.com/moby/moby/api/types/network"
)

// listed is a container with the record of the moment of listing.
type listed struct {
	k   *ctr
	rec record
}

// getList is GET /containers/json.
func (c *containers) getList(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilters(r, "ancestor", "before", "exited", "expose", "health", "id", "is-task",
		"isolation", "label", "name", "network", "publish", "since", "status", "volume")
	if err != nil {
		return err
	}
	limit := 0
	if s := r.FormValue("limit"); s != "" {
		if limit, err = strconv.Atoi(s); err != nil {
			return invalid("invalid limit %q: want a number", s)
		}
	}
	fits, err := c.listFilter(r.Context(), f)
	if err != nil {
		return err
	}
	// A status or an exit code asks for what does not run too.
	all := boolValue(r, "all") || limit > 0 || f.has("status") || f.has("exited") || f.has("since") || f.has("before")
	list := []container.Summary{}
	for _, k := range c.all() {
		l := listed{k, k.snapshot()}
		if !all && l.rec.State.Phase != running && l.rec.State.Phase != restarting || !fits(l) {
			continue
		}
		s, err := c.summary(r.Context(), l, boolValue(r, "size"))
		if err != nil {
			return err
		}
		list = append(list, s)
		if limit > 0 && len(list) == limit {
			break
		}
	}
	return replyJSON(w, http.StatusOK, list)
}

// listFilter makes the test that f describes. Images and containers that it names
// are looked up once.
func (c *containers) listFilter(ctx context.Context, f filters) (func(listed) bool, error) {
	for _, s := range f.values("status") {
		if err := container.ValidateContainerState(container.ContainerState(s)); err != nil {
			return nil, invalid("invalid filter 'status=%s'", s)
		}
	}
	for _, s := range f.values("health") {
		if err := container.ValidateHealthStatus(container.HealthStatus(s)); err != nil {
			return nil, invalid("invalid filter 'health=%s'", s)
		}
	}
	var codes []int
	for _, s := range f.values("exited") {
		code, err := strconv.Atoi(s)
		if err != nil {
			return nil, invalid("invalid filter 'exited=%s'", s)
		}
		codes = append(codes, code)
	}
	before, err := c.creationOf(f, "before")
	if err != nil {
		return nil, err
	}
	since, err := c.creationOf(f, "since")
	if err != nil {
		return nil, err
	}
	ancestors, err := c.ancestors(ctx, f)
	if err != nil {
		return nil, err
	}
	ports, err := portTests(f)
	if err != nil {
		return nil, err
	}
	return func(l listed) bool {
		s := l.rec.State
		switch {
		case !before.IsZero() && !l.rec.Created.Before(before),
			!since.IsZero() && !l.rec.Created.After(since),
			codes != nil && (s.Phase != exited || !slices.Contains(codes, s.ExitCode)),
			f.has("ancestor") && !slices.Contains(ancestors, l.rec.ImageID.String()),
			f.has("is-task") && !f["is-task"]["false"]:
			return false
		}
		return f.prefix("id", l.k.id) && f.pattern("name", l.rec.Name, "/"+l.rec.Name) &&
			f.labels("label", l.rec.Config.Labels) && f.exact("status", string(l.rec.status())) &&
			f.exact("health", string(healthOf(l.rec))) && ports(l.rec) &&
			fitsVolume(f, l.rec) && fitsNetwork(f, l.rec)
	}, nil
}

// creationOf is when the container that the filter key names was made.
func (c *containers) creationOf(f filters, key string) (t time.Time, err error) {
	for _, ref := range f.values(key) {
		k, err := c.find(ref)
		if err != nil {
			return time.Time{}, err
		}
		t = k.created
	}
	return t, nil
}

// ancestors are the IDs of the images that the filter names; unknown ones match
// nothing.
func (c *containers) ancestors(ctx context.Context, f filters) ([]string, error) {
	var ids []string
	for _, ref := range f.values("ancestor") {
		img, err := c.images.resolve(ctx, ref, nil)
		switch {
		case errdefs.IsNotFound(err):
		case err != nil:
			return nil, err
		default:
			ids = append(ids, img.Target.Digest.String())
		}
	}
	return ids, nil
}

// portTests read expose and publish: "80", "80/udp", "8000-8010/tcp".
func portTests(f filters) (func(record) bool, error) {
	parse := func(key string) (rs []dockernet.PortRange, err error) {
		for _, v := range f.values(key) {
			r, err := dockernet.ParsePortRange(v)
			if err != nil {
				return nil, invalid("invalid port in filter '%s=%s': %w", key, v, err)
			}
			rs = append(rs, r)
		}
		return rs, nil
	}
	exposed, err := parse("expose")
	if err != nil {
		return nil, err
	}
	published, err := parse("publish")
	if err != nil {
		return nil, err
	}
	has := func(rs []dockernet.PortRange, p dockernet.Port) bool {
		return slices.ContainsFunc(rs, func(r dockernet.PortRange) bool {
			return r.Proto() == p.Proto() && r.Start() <= p.Num() && p.Num() <= r.End()
		})
	}
	return func(rec record) bool {
		e, p := exposed == nil, published == nil
		for port := range rec.Config.ExposedPorts {
			e = e || has(exposed, port)
		}
		for port, bindings := range rec.HostConfig.PortBindings {
			e = e || has(exposed, port)
			for _, b := range bindings {
				host, err := dockernet.ParsePort(b.HostPort + "/" + string(port.Proto()))
				p = p || has(published, port) || err == nil && has(published, host)
			}
		}
		return e && p
	}, nil
}

func fitsVolume(f filters, rec record) bool {
	var vs []string
	for _, p := range rec.Mounts {
		vs = append(vs, p.Name, p.Destination, p.Source)
	}
	return f.anyOf("volume", vs, func(v, want string) bool { return v == want })
}

func fitsNetwork(f filters, rec record) bool {
	var ns []string
	for name, ep := range rec.Endpoints {
		ns = append(ns, name)
		if ep.NetworkID != "" {
			ns = append(ns, ep.NetworkID)
		}
	}
	return f.anyOf("network", ns, func(v, want string) bool {
		return v == want || len(want) >= 12 && strings.HasPrefix(v, want)
	})
}

// summary is one row of the list.
func (c *containers) summary(ctx context.Context, l listed, size bool) (container.Summary, error) {
	rec := l.rec
	s := container.Summary{
		ID: l.k.id, Names: []string{"/" + rec.Name}, Image: rec.Image, ImageID: rec.ImageID.String(),
		ImageManifestDescriptor: rec.Manifest, Command: commandLine(rec), Created: rec.Created.Unix(),
		Ports: ports(rec), Labels: rec.Config.Labels, State: rec.status(), Status: statusLine(rec, time.Now()),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: rec.Endpoints},
		Health:          &container.HealthSummary{Status: healthOf(rec)},
	}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if rec.Health != nil {
		s.Health.FailingStreak = rec.Health.FailingStreak
	}
	s.HostConfig.NetworkMode = string(rec.HostConfig.NetworkMode)
	s.HostConfig.Annotations = rec.HostConfig.Annotations
	s.Mounts = shownMounts(rec)
	if !size {
		return s, nil
	}
	var err error
	if s.SizeRw, err = c.usage(ctx, l.k.id); err == nil {
		s.SizeRootFs, err = c.totalSize(ctx, l.k.id)
	}
	if errdefs.IsNotFound(err) {
		err = nil // it is being removed
	}
	return s, err
}

// commandLine is the command as docker ps shows it.
func commandLine(rec record) string {
	args := slices.Concat(rec.Config.Entrypoint, rec.Config.Cmd)
	for i, a := range args[1:] {
		if strings.ContainsRune(a, ' ') {
			args[i+1] = "'" + a + "'"
		}
	}
	return strings.Join(args, " ")
}

// ports are what is exposed, and what is published while it runs.
func ports(rec record) []container.PortSummary {
	list := []container.PortSummary{}
	if rec.State.Phase != running {
		return list
	}
	for port := range rec.Config.ExposedPorts {
		if len(rec.Ports[port]) == 0 {
			list = append(list, container.PortSummary{PrivatePort: port.Num(), Type: string(port.Proto())})
		}
	}
	for port, bindings := range rec.Ports {
		for _, b := range bindings {
			host, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue
			}
			list = append(list, container.PortSummary{
				IP: b.HostIP, PrivatePort: port.Num(), PublicPort: uint16(host), Type: string(port.Proto()),
			})
		}
	}
	slices.SortFunc(list, func(a, b container.PortSummary) int {
		if a.PrivatePort != b.PrivatePort {
			return int(a.PrivatePort) - int(b.PrivatePort)
		}
		return strings.Compare(a.Type+addr(a.IP), b.Type+addr(b.IP))
	})
	return list
}

// statusLine is the state in words, as docker ps shows it.
func statusLine(rec record, now time.Time) string {
	s := rec.State
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch {
	case s.Dead:
		return "Dead"
	case s.Paused:
		return fmt.Sprintf("Up %s (Paused)", ago(s.StartedAt))
	}
	switch s.Phase {
	case running:
		up := "Up " + ago(s.StartedAt)
		switch h := healthOf(rec); h {
		case container.NoHealthcheck:
			return up
		case container.Starting:
			return up + " (health: starting)"
		default:
			return fmt.Sprintf("%s (%s)", up, h)
		}
	case restarting:
		return fmt.Sprintf("Restarting (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	case removing:
		return "Removal In Progress"
	case exited:
		return fmt.Sprintf("Exited (%d) %s ago", s.ExitCode, ago(s.FinishedAt))
	}
	return "Created"
}

// healthOf is the health in one word.
func healthOf(rec record) container.HealthStatus {
	if rec.Health == nil {
		return container.NoHealthcheck
	}
	return rec.Health.Status
}
