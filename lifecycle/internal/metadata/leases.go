package metadata

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	api "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/gantryd/gantry/internal/filter"
)

// Leases is the leases of one namespace.
type Leases struct {
	db *DB
	ns string
}

// Leases gives the leases of ns.
func (db *DB) Leases(ns string) Leases { return Leases{db, ns} }

// Create makes a lease; without an ID it gets one.
func (l Leases) Create(id string, labels map[string]string) (*api.Lease, error) {
	now := time.Now()
	if id == "" {
		id = fmt.Sprintf("%d-%s", now.Nanosecond(), rand.Text()[:4])
	}
	err := l.db.update(func(tx *bolt.Tx) error {
		set, err := makeAt(tx, l.ns, leases)
		if err != nil {
			return err
		}
		b, err := makeNew(set, "lease", id)
		if err != nil {
			return err
		}
		if err := writeTime(b, keyCreatedAt, now); err != nil {
			return err
		}
		return writeLabels(b, labels)
	})
	if err != nil {
		return nil, err
	}
	return &api.Lease{ID: id, CreatedAt: timestamppb.New(now), Labels: labels}, nil
}

// List reads those that match one of the filters.
func (l Leases) List(filters ...string) (out []*api.Lease, err error) {
	f, err := filter.Parse(filters...)
	if err != nil {
		return nil, err
	}
	err = l.db.bolt.View(func(tx *bolt.Tx) error {
		return eachBucket(at(tx, l.ns, leases), func(id string, b *bolt.Bucket) error {
			lease := &api.Lease{ID: id, CreatedAt: stampOf(b, keyCreatedAt), Labels: labelsOf(b)}
			if f.Match(leaseFields(lease)) {
				out = append(out, lease)
			}
			return nil
		})
	})
	return out, err
}

func leaseFields(l *api.Lease) filter.Fields {
	return func(path []string) (string, bool) {
		switch path[0] {
		case "id":
			return l.ID, true
		case "labels":
			return filter.Labels(l.Labels, path[1:])
		}
		return "", false
	}
}

// Expire has a lease end at the given time.
func (l Leases) Expire(id string, end time.Time) error {
	return l.db.bolt.Update(func(tx *bolt.Tx) error {
		b := at(tx, l.ns, leases, id)
		if b == nil {
			return notFound("lease", id)
		}
		labels := labelsOf(b)
		if labels == nil {
			labels = map[string]string{}
		}
		labels[labelExpire] = end.UTC().Format(time.RFC3339)
		return writeLabels(b, labels)
	})
}

// Delete ends a lease. What only it held is collected a little later.
func (l Leases) Delete(id string) error {
	err := l.db.delete(func(tx *bolt.Tx) error {
		set := at(tx, l.ns, leases)
		if below(set, id) == nil {
			return notFound("lease", id)
		}
		return set.DeleteBucket([]byte(id))
	})
	if err == nil {
		l.db.collections.later()
	}
	return err
}

// Add makes the lease hold a resource, which need not be there yet.
func (l Leases) Add(id string, r *api.Resource) error {
	path, err := resourcePath(r)
	if err != nil {
		return err
	}
	return l.db.update(func(tx *bolt.Tx) error {
		return Scope{Namespace: l.ns, Lease: id}.hold(tx, path...)
	})
}

// Remove makes the lease let a resource go.
func (l Leases) Remove(id string, r *api.Resource) error {
	path, err := resourcePath(r)
	if err != nil {
		return err
	}
	err = l.db.update(func(tx *bolt.Tx) error {
		if at(tx, l.ns, leases, id) == nil {
			return notFound("lease", id)
		}
		return Scope{Namespace: l.ns, Lease: id}.release(tx, path...)
	})
	if err == nil {
		l.db.collections.later()
	}
	return err
}

// Resources lists what a lease holds.
func (l Leases) Resources(id string) (out []*api.Resource, err error) {
	err = l.db.bolt.View(func(tx *bolt.Tx) error {
		b := at(tx, l.ns, leases, id)
		if b == nil {
			return notFound("lease", id)
		}
		for _, kind := range []string{blobs, images, "ingests"} {
			eachKey(below(b, kind), func(k string) { out = append(out, &api.Resource{ID: k, Type: kind}) })
		}
		return eachBucket(below(b, snapshots), func(sn string, b *bolt.Bucket) error {
			eachKey(b, func(k string) { out = append(out, &api.Resource{ID: k, Type: snapshots + "/" + sn}) })
			return nil
		})
	})
	return out, err
}

// resourcePath is where a resource stands in a lease.
func resourcePath(r *api.Resource) ([]string, error) {
	kind, sn, _ := strings.Cut(r.GetType(), "/")
	switch {
	case r.GetID() == "":
		return nil, fmt.Errorf("resource of type %q without ID: %w", r.GetType(), errdefs.ErrInvalidArgument)
	case kind == blobs && sn == "":
		if _, err := digest.Parse(r.ID); err != nil {
			return nil, fmt.Errorf("resource %q: %w: %w", r.ID, err, errdefs.ErrInvalidArgument)
		}
		return []string{blobs, r.ID}, nil
	case (kind == "ingests" || kind == images) && sn == "":
		return []string{kind, r.ID}, nil
	case kind == snapshots && sn != "":
		return []string{snapshots, sn, r.ID}, nil
	}
	return nil, fmt.Errorf("resource type %q: want content, images, ingests or snapshots/NAME: %w", r.GetType(), errdefs.ErrNotImplemented)
}
