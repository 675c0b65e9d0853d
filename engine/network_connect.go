package engine

import (
	"context"
	"net/http"

	"github.com/containerd/errdefs"
	eventsapi "github.com/moby/moby/api/types/events"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/gantryd/gantry/network"
)

// postConnect is POST /networks/{id}/connect.
func (n *networks) postConnect(w http.ResponseWriter, r *http.Request) error {
	var req dockernet.ConnectRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	one, err := n.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	wish := req.EndpointConfig
	if wish == nil {
		wish = &dockernet.EndpointSettings{}
	}
	ctx := context.WithoutCancel(r.Context())
	err = n.containers.editNetworks(ctx, req.Container, func(u user, eps map[string]*dockernet.EndpointSettings) error {
		if err := connectable(one, u, eps); err != nil {
			return err
		}
		if err := n.check(netWish{Endpoints: map[string]*dockernet.EndpointSettings{one.Name: wish}}); err != nil {
			return err
		}
		if !u.Running {
			ep := wish.Copy()
			ep.NetworkID = one.ID
			eps[one.Name] = ep
			return nil
		}
		ep, err := n.join(ctx, u.ID, u.Name, u.Hostname, one, wish)
		if err != nil {
			return err
		}
		eps[one.Name] = ep
		n.tell(eventsapi.ActionConnect, one, u.ID)
		return nil
	})
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// connectable says why a container cannot be joined to one more network.
func connectable(one network.Network, u user, eps map[string]*dockernet.EndpointSettings) error {
	switch {
	case u.Mode.IsContainer():
		return invalid("container sharing network namespace with another container or host cannot be connected to any other network")
	case u.Mode.IsHost() && u.Running || one.Name == network.Host:
		return invalid("container cannot be disconnected from host network or connected to host network")
	case one.Name == network.None || eps[network.None] != nil:
		return invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
	case eps[one.Name] != nil:
		return because(errdefs.ErrPermissionDenied, "endpoint with name %s already exists in network %s", u.Name, one.Name)
	}
	return nil
}

// postDisconnect is POST /networks/{id}/disconnect. With force, a container that
// is gone, or not joined, is disconnected as wished.
func (n *networks) postDisconnect(w http.ResponseWriter, r *http.Request) error {
	var req dockernet.DisconnectRequest
	if err := readJSON(r, &req); err != nil {
		return err
	}
	one, err := n.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	err = n.containers.editNetworks(ctx, req.Container, func(u user, eps map[string]*dockernet.EndpointSettings) error {
		key := joinedAs(eps, one)
		switch {
		case one.Name == network.Host:
			return invalid("container cannot be disconnected from host network or connected to host network")
		case key == "":
			return because(errdefs.ErrPermissionDenied, "container %s is not connected to network %s", u.ID, one.Name)
		}
		if u.Running {
			if err := n.store.Leave(ctx, u.ID, one.ID); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
			n.tell(eventsapi.ActionDisconnect, one, u.ID)
		}
		delete(eps, key)
		return nil
	})
	if errdefs.IsNotFound(err) && req.Force {
		err = nil
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// joinedAs is the name by which a container's endpoint in a network is kept: the
// network's name, or its ID where the user wrote that; "" if there is none.
func joinedAs(eps map[string]*dockernet.EndpointSettings, one network.Network) string {
	for name, ep := range eps {
		if name == one.Name || name == one.ID || ep.NetworkID == one.ID {
			return name
		}
	}
	return ""
}
