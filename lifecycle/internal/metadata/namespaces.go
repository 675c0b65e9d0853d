package metadata

import (
	"fmt"
	"maps"

	"github.com/containerd/containerd/api/events"
	api "github.com/containerd/containerd/api/services/namespaces/v1"
	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
)

// Namespaces is the namespaces of the daemon.
type Namespaces struct{ db *DB }

// Namespaces gives the namespaces.
func (db *DB) Namespaces() Namespaces { return Namespaces{db} }

// Get reads one. A namespace that nobody made is there too, without labels: it
// comes to be when something is put into it.
func (n Namespaces) Get(name string) (ns *api.Namespace, err error) {
	err = n.db.bolt.View(func(tx *bolt.Tx) error {
		ns = &api.Namespace{Name: name}
		if b := at(tx, name); b != nil {
			ns.Labels = labelsOf(b)
		}
		return nil
	})
	return ns, err
}

// List reads all.
func (n Namespaces) List() (all []*api.Namespace, err error) {
	err = n.db.bolt.View(func(tx *bolt.Tx) error {
		return eachBucket(at(tx), func(name string, b *bolt.Bucket) error {
			all = append(all, &api.Namespace{Name: name, Labels: labelsOf(b)})
			return nil
		})
	})
	return all, err
}

// Create makes one.
func (n Namespaces) Create(ns *api.Namespace) error {
	if err := CheckIdentifier("namespace", ns.GetName()); err != nil {
		return err
	}
	err := n.db.update(func(tx *bolt.Tx) error {
		b, err := makeNew(at(tx), "namespace", ns.Name)
		if err != nil {
			return err
		}
		return writeLabels(b, ns.Labels)
	})
	if err == nil {
		n.db.publish(ns.Name, "/namespaces/create", &events.NamespaceCreate{Name: ns.Name, Labels: ns.Labels})
	}
	return err
}

// Update writes the labels that paths name, all of them where there is no path. It
// makes a namespace that is not there.
func (n Namespaces) Update(ns *api.Namespace, paths []string) (*api.Namespace, error) {
	if err := CheckIdentifier("namespace", ns.GetName()); err != nil {
		return nil, err
	}
	if err := checkPaths(paths, "labels."); err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		paths = []string{"labels"}
	}
	var labels map[string]string
	err := n.db.update(func(tx *bolt.Tx) error {
		b, err := makeAt(tx, ns.Name)
		if err != nil {
			return err
		}
		labels = editLabels(labelsOf(b), ns.Labels, paths)
		return writeLabels(b, labels)
	})
	if err != nil {
		return nil, err
	}
	n.db.publish(ns.Name, "/namespaces/update", &events.NamespaceUpdate{Name: ns.Name, Labels: labels})
	return &api.Namespace{Name: ns.Name, Labels: maps.Clone(labels)}, nil
}

// Delete removes one that has nothing in it.
func (n Namespaces) Delete(name string) error {
	err := n.db.delete(func(tx *bolt.Tx) error {
		b := at(tx, name)
		if b == nil {
			return notFound("namespace", name)
		}
		if err := checkEmpty(b, name); err != nil {
			return err
		}
		return at(tx).DeleteBucket([]byte(name))
	})
	if err == nil {
		n.db.publish(name, "/namespaces/delete", &events.NamespaceDelete{Name: name})
	}
	return err
}

// checkEmpty refuses a namespace that has objects.
func checkEmpty(ns *bolt.Bucket, name string) error {
	sets := map[string]*bolt.Bucket{
		"images": below(ns, images), "containers": below(ns, containers),
		"blobs": below(ns, blobs, "blob"), "leases": below(ns, leases), "sandboxes": below(ns, sandboxes),
	}
	eachBucket(below(ns, snapshots), func(sn string, b *bolt.Bucket) error {
		sets["snapshots in "+sn] = b
		return nil
	})
	for what, b := range sets {
		if b == nil {
			continue
		}
		if k, _ := b.Cursor().First(); k != nil {
			return fmt.Errorf("namespace %q still has %s: %w", name, what, errdefs.ErrFailedPrecondition)
		}
	}
	return nil
}
