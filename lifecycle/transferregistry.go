package lifecycle

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"

	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/remote"
)

// registry makes the client for one end of a transfer. The function that it
// returns ends it.
func (t *transfers) registry(ns string, r *transfertypes.OCIRegistry) (*remote.Client, func(), error) {
	res := r.Resolver
	plain := res.GetDefaultScheme() == "http"
	cfg := remote.Config{
		PlainHTTP: func(host string) bool { return plain || slices.Contains(t.insecure, host) },
		HostsDir:  res.GetHostDir(),
		Header:    http.Header{},
	}
	for name, value := range res.GetHeaders() {
		cfg.Header.Set(name, value)
	}
	cfg.UserAgent = cfg.Header.Get("User-Agent")
	done := func() {}
	if id := res.GetAuthStream(); id != "" {
		st, err := t.streams.take(ns, id)
		if err != nil {
			return nil, nil, fmt.Errorf("credentials: %w", err)
		}
		a := &asker{s: st, reference: r.Reference, known: map[string]remote.Credential{}}
		cfg.Credentials = a.credentials
		done = st.close
	}
	c := remote.New(cfg)
	return c, func() { c.Close(); done() }, nil
}

// asker asks the client for credentials, on the stream that it opened for that.
type asker struct {
	mu        sync.Mutex // one question at a time
	s         *stream
	reference string
	known     map[string]remote.Credential
}

func (a *asker) credentials(_ context.Context, host string) (remote.Credential, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, ok := a.known[host]; ok {
		return c, nil
	}
	err := a.s.send(&transfertypes.AuthRequest{Host: host, Reference: a.reference})
	if err != nil {
		return remote.Credential{}, fmt.Errorf("ask for credentials of %s: %w", host, err)
	}
	m, err := a.s.recv()
	if err != nil {
		return remote.Credential{}, fmt.Errorf("ask for credentials of %s: %w", host, err)
	}
	c, err := credential(m)
	if err != nil {
		return remote.Credential{}, fmt.Errorf("ask for credentials of %s: %w", host, err)
	}
	a.known[host] = c
	return c, nil
}

func credential(m any) (remote.Credential, error) {
	r, ok := m.(*transfertypes.AuthResponse)
	if !ok {
		return remote.Credential{}, fmt.Errorf("got %T, want AuthResponse: %w", m, errdefs.ErrInvalidArgument)
	}
	switch r.AuthType {
	case transfertypes.AuthType_NONE:
		return remote.Credential{}, nil
	case transfertypes.AuthType_CREDENTIALS:
		return remote.Credential{User: r.Username, Secret: r.Secret}, nil
	case transfertypes.AuthType_REFRESH:
		return remote.Credential{Secret: r.Secret}, nil
	case transfertypes.AuthType_HEADER:
		return remote.Credential{Authorization: r.Secret}, nil
	}
	return remote.Credential{}, fmt.Errorf("credentials of type %s: %w", r.AuthType, errdefs.ErrNotImplemented)
}
