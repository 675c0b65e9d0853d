package engine

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	eventsapi "github.com/moby/moby/api/types/events"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/gantryd/gantry/network"
)

// networks is the noun over package network: who is joined, containers know.
type networks struct {
	store      *network.Networks
	publishAt  netip.Addr // of a published port that names none
	events     *events
	containers *containers
}

func newNetworks(ctx context.Context, cfg Config, ev *events, cs *containers) (*networks, error) {
	publish, err := netip.ParseAddr(cfg.PublishAddress)
	if err != nil {
		return nil, fmt.Errorf("read the address of published ports %q: %w", cfg.PublishAddress, err)
	}
	subnet := cfg.BridgeSubnet
	if subnet == defaultSubnet {
		subnet = "" // may be taken, and is replaced then
	}
	store, err := network.Open(ctx, network.Config{
		Root: filepath.Join(cfg.Root, "networks"), State: filepath.Join(cfg.State, "networks"),
		Bridge: cfg.Bridge, Subnet: subnet, PublishAddress: publish, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return &networks{store: store, publishAt: publish, events: ev, containers: cs}, nil
}

func (n *networks) close() error { return n.store.Close() }

func (n *networks) routes() []route {
	const get, post = http.MethodGet, http.MethodPost
	return []route{
		{get, "/networks", n.getList},
		{post, "/networks/create", n.postCreate},
		{post, "/networks/prune", n.postPrune},
		{get, "/networks/{id}", n.getInspect},
		{post, "/networks/{id}/connect", n.postConnect},
		{post, "/networks/{id}/disconnect", n.postDisconnect},
		{http.MethodDelete, "/networks/{id}", n.delete},
	}
}

// find finds a network in the API's words.
func (n *networks) find(ref string) (network.Network, error) {
	w, err := n.store.Network(ref)
	switch {
	case errdefs.IsNotFound(err):
		return w, notFound("network %s not found", ref)
	case errdefs.IsInvalidArgument(err):
		return w, invalid("network %s is ambiguous (several IDs begin with it)", ref)
	}
	return w, err
}

func predefined(name string) bool {
	return name == network.Default || name == network.Host || name == network.None
}

// getList is GET /networks.
func (n *networks) getList(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilters(r, "dangling", "driver", "id", "label", "name", "scope", "type")
	if err != nil {
		return err
	}
	dangling, err := f.truth("dangling", false)
	if err != nil {
		return err
	}
	for _, kind := range f.values("type") {
		if kind != "builtin" && kind != "custom" {
			return invalid("invalid filter: 'type'='%s'", kind)
		}
	}
	list := []dockernet.Inspect{}
	for _, one := range n.store.List() {
		kind := "custom"
		if predefined(one.Name) {
			kind = "builtin"
		}
		switch {
		case !f.exact("driver", one.Driver) || !f.prefix("id", one.ID) || !nameContains(f, one.Name):
		case !f.labels("label", one.Labels) || !f.exact("scope", "local") || !f.exact("type", kind):
		case f.has("dangling") && dangling != (kind == "custom" && len(n.containers.usingNetwork(one.Name, one.ID)) == 0):
		default:
			list = append(list, n.shown(one))
		}
	}
	return replyJSON(w, http.StatusOK, list)
}

// shown is w as the API has it, without its containers.
func (n *networks) shown(w network.Network) dockernet.Inspect {
	shown := dockernet.Inspect{
		Network: dockernet.Network{
			ID: w.ID, Name: w.Name, Created: w.Created, Scope: "local", Driver: w.Driver,
			EnableIPv4: true, Internal: w.Internal, Options: w.Options, Labels: w.Labels,
			IPAM: dockernet.IPAM{Driver: "default", Config: []dockernet.IPAMConfig{}},
		},
		Containers: map[string]dockernet.EndpointResource{},
	}
	for _, s := range w.Subnets {
		shown.EnableIPv6 = shown.EnableIPv6 || s.Prefix.Addr().Is6()
		c := dockernet.IPAMConfig{Subnet: s.Prefix, Gateway: s.Gateway, AuxAddress: s.Reserved}
		if s.Range != s.Prefix {
			c.IPRange = s.Range
		}
		shown.IPAM.Config = append(shown.IPAM.Config, c)
	}
	if shown.Options == nil {
		shown.Options = map[string]string{}
	}
	if shown.Labels == nil {
		shown.Labels = map[string]string{}
	}
	if w.Name == network.Default {
		shown.Options = map[string]string{
			optionPrefix + "default_bridge": "true", optionICC: strconv.FormatBool(!w.Isolated),
			optionMasquerade: strconv.FormatBool(!w.NoMasquerade), optionName: w.Device,
			optionMTU: strconv.Itoa(mtuOf(w)), optionPublish: n.publishAt.String(),
		}
	}
	return shown
}

func mtuOf(w network.Network) int {
	if w.MTU == 0 {
		return 1500
	}
	return w.MTU
}

// getInspect is GET /networks/{id}.
func (n *networks) getInspect(w http.ResponseWriter, r *http.Request) error {
	if scope := r.FormValue("scope"); scope != "" && scope != "local" {
		return notFound("network %s not found", r.PathValue("id"))
	}
	one, err := n.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	shown := n.shown(one)
	eps, err := n.store.Endpoints(one.ID)
	if err != nil {
		return err
	}
	for _, ep := range eps {
		res := dockernet.EndpointResource{EndpointID: ep.ID, MacAddress: dockernet.HardwareAddr(ep.MAC)}
		if k, err := n.containers.find(ep.SandboxID); err == nil {
			res.Name = k.snapshot().Name
		}
		for _, a := range ep.Addrs {
			if a.Addr().Is4() {
				res.IPv4Address = a
			} else {
				res.IPv6Address = a
			}
		}
		shown.Containers[ep.SandboxID] = res
	}
	// A container in the host's network, or without one, has no endpoint below.
	if predefined(one.Name) && one.Name != network.Default {
		for _, u := range n.containers.usingNetwork(one.Name, one.ID) {
			if u.Running {
				shown.Containers[u.ID] = dockernet.EndpointResource{Name: u.Name, EndpointID: endpointID(u.ID, one.ID)}
			}
		}
	}
	return replyJSON(w, http.StatusOK, shown)
}

// What docker network create takes by --opt for the driver bridge.
const (
	optionPrefix     = "com.docker.network.bridge."
	optionName       = optionPrefix + "name"
	optionICC        = optionPrefix + "enable_icc"
	optionMasquerade = optionPrefix + "enable_ip_masquerade"
	optionPublish    = optionPrefix + "host_binding_ipv4"
	optionMTU        = "com.docker.network.driver.mtu"
)

// postCreate is POST /networks/create.
func (n *networks) postCreate(w http.ResponseWriter, r *http.Request) error {
	var req dockernet.CreateRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	wish, err := wishedNetwork(req)
	if err != nil {
		return err
	}
	made, err := n.store.Create(context.WithoutCancel(r.Context()), wish)
	if errdefs.IsAlreadyExists(err) {
		return conflict("network with name %s already exists", req.Name)
	}
	if errdefs.IsFailedPrecondition(err) {
		return because(errdefs.ErrPermissionDenied, "%s", plainText(err))
	}
	if err != nil {
		return err
	}
	n.tell(eventsapi.ActionCreate, made, "")
	return replyJSON(w, http.StatusCreated, dockernet.CreateResponse{ID: made.ID})
}

// wishedNetwork is req in the words of package network.
func wishedNetwork(req dockernet.CreateRequest) (network.Network, error) {
	w := network.Network{
		Name: req.Name, Internal: req.Internal, Labels: req.Labels, Options: req.Options,
		IPv6: req.EnableIPv6 != nil && *req.EnableIPv6,
	}
	switch {
	case strings.TrimSpace(req.Name) == "":
		return w, invalid("invalid network name: name is empty")
	case predefined(req.Name):
		return w, because(errdefs.ErrPermissionDenied, "operation is not permitted on predefined %s network", req.Name)
	case req.ConfigOnly || req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return w, because(errdefs.ErrNotImplemented, "configuration-only networks are not supported")
	case req.Ingress || req.Scope != "" && req.Scope != "local":
		return w, notSwarmManager()
	case req.EnableIPv4 != nil && !*req.EnableIPv4:
		return w, because(errdefs.ErrNotImplemented, "networks without IPv4 are not supported")
	}
	switch req.Driver {
	case "", "bridge", "default":
	case "host", "null":
		return w, because(errdefs.ErrPermissionDenied, "only one instance of %q network is allowed", req.Driver)
	default:
		return w, notFound("could not find plugin %s in v1 plugin registry: plugin not found", req.Driver)
	}
	if err := driverOptions(&w); err != nil {
		return w, err
	}
	if req.IPAM == nil {
		return w, nil
	}
	if d := req.IPAM.Driver; d != "" && d != "default" {
		return w, notFound("could not find plugin %s in v1 plugin registry: plugin not found", d)
	}
	for _, c := range req.IPAM.Config {
		if !c.Subnet.IsValid() {
			if c.Gateway.IsValid() || c.IPRange.IsValid() || len(c.AuxAddress) > 0 {
				return w, invalid("invalid network config: a gateway, range or address needs a subnet")
			}
			continue
		}
		if c.Subnet != c.Subnet.Masked() {
			return w, invalid("invalid network config:\ninvalid subnet %s: it should be %s", c.Subnet, c.Subnet.Masked())
		}
		w.Subnets = append(w.Subnets, network.Subnet{Prefix: c.Subnet, Gateway: c.Gateway, Range: c.IPRange, Reserved: c.AuxAddress})
	}
	return w, nil
}

// driverOptions reads w's options. Those that are not known are kept, as labels are.
func driverOptions(w *network.Network) (err error) {
	for key, value := range w.Options {
		switch key {
		case optionName:
			w.Device = value
		case optionICC, optionMasquerade:
			on, err := strconv.ParseBool(value)
			if err != nil {
				return invalid("failed to parse %s value: %s: want true or false", key, value)
			}
			if key == optionICC {
				w.Isolated = !on
			} else {
				w.NoMasquerade = !on
			}
		case optionPublish:
			if w.PublishAddress, err = netip.ParseAddr(value); err != nil {
				return invalid("failed to parse %s value: %s: want an address", key, value)
			}
		case optionMTU:
			if w.MTU, err = strconv.Atoi(value); err != nil || w.MTU < 0 {
				return invalid("failed to parse %s value: %s: want a number of bytes", key, value)
			}
		}
	}
	return nil
}

// delete is DELETE /networks/{id}.
func (n *networks) delete(w http.ResponseWriter, r *http.Request) error {
	one, err := n.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	if predefined(one.Name) {
		return because(errdefs.ErrPermissionDenied, "%s is a pre-defined network and cannot be removed", one.Name)
	}
	if err := n.remove(context.WithoutCancel(r.Context()), one); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (n *networks) remove(ctx context.Context, one network.Network) error {
	err := n.store.Remove(ctx, one.ID)
	if errdefs.IsFailedPrecondition(err) {
		var who []string
		if eps, err := n.store.Endpoints(one.ID); err == nil {
			for _, ep := range eps {
				if k, err := n.containers.find(ep.SandboxID); err == nil {
					who = append(who, fmt.Sprintf("name:%q id:%q", k.snapshot().Name, ep.ID[:12]))
				}
			}
		}
		return because(errdefs.ErrPermissionDenied, "error while removing network: network %s has active endpoints (%s)", one.Name, strings.Join(who, ", "))
	}
	if errdefs.IsNotFound(err) {
		return notFound("network %s not found", one.Name)
	}
	if err != nil {
		return err
	}
	n.tell(eventsapi.ActionDestroy, one, "")
	return nil
}

// postPrune is POST /networks/prune: networks that no container is joined to.
func (n *networks) postPrune(w http.ResponseWriter, r *http.Request) error {
	f, err := parseFilters(r, "label", "label!", "until")
	if err != nil {
		return err
	}
	var until time.Time
	for _, v := range f.values("until") {
		if until, err = pruneUntil(v, time.Now()); err != nil {
			return err
		}
	}
	report := dockernet.PruneReport{NetworksDeleted: []string{}}
	for _, one := range n.store.List() {
		joined := slices.ContainsFunc(n.containers.usingNetwork(one.Name, one.ID), func(u user) bool { return u.Running })
		if predefined(one.Name) || joined || !until.IsZero() && one.Created.After(until) ||
			!f.labels("label", one.Labels) || !f.notLabels("label!", one.Labels) {
			continue
		}
		if err := n.remove(r.Context(), one); err != nil {
			if statusOf(err) >= http.StatusInternalServerError {
				return err
			}
			continue // somebody joined, or removed it, meanwhile
		}
		report.NetworksDeleted = append(report.NetworksDeleted, one.Name)
	}
	n.events.publish(eventsapi.NetworkEventType, eventsapi.ActionPrune, "", map[string]string{"reclaimed": "0"})
	return replyJSON(w, http.StatusOK, report)
}

// tell publishes an event of a network, and of a container in it if there is one.
func (n *networks) tell(action eventsapi.Action, w network.Network, container string) {
	attrs := map[string]string{"name": w.Name, "type": w.Driver}
	if container != "" {
		attrs["container"] = container
	}
	n.events.publish(eventsapi.NetworkEventType, action, w.ID, attrs)
}
