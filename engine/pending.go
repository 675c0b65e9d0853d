package engine

import (
	"context"
	"net/http"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/bundle/docker"
)

func todo() error { return because(errdefs.ErrNotImplemented, "not yet") }

func (c *containers) getChanges(w http.ResponseWriter, r *http.Request) error { return todo() }

func (c *containers) getExport(w http.ResponseWriter, r *http.Request) error { return todo() }

func (c *containers) getAttachWebsocket(w http.ResponseWriter, r *http.Request) error { return todo() }

func (c *containers) headArchive(w http.ResponseWriter, r *http.Request) error { return todo() }

func (c *containers) getArchive(w http.ResponseWriter, r *http.Request) error { return todo() }

func (c *containers) putArchive(w http.ResponseWriter, r *http.Request) error { return todo() }

func (c *containers) postCommit(w http.ResponseWriter, r *http.Request) error { return todo() }

func (c *containers) copyUp(ctx context.Context, k *ctr, p docker.Point) error { return nil }

func subpath(dir, sub string) (string, error) { return dir, nil }

type prober struct{}

func (c *containers) probe(k *ctr, r *run) {}
func (c *containers) stopProbe(k *ctr)     {}
