package metadata

import (
	bolt "go.etcd.io/bbolt"

	"github.com/gantryd/gantry/internal/filter"
)

// readOne reads the record name out of a set of ns, such as its containers. kind
// is what errors call it.
func readOne[T any](db *DB, ns, set, kind, name string, read func(*bolt.Bucket, string) T) (out T, err error) {
	err = db.bolt.View(func(tx *bolt.Tx) error {
		b := at(tx, ns, set, name)
		if b == nil {
			return notFound(kind, name)
		}
		out = read(b, name)
		return nil
	})
	return out, err
}

// readAll reads those records of a set of ns that match one of the filters.
func readAll[T any](db *DB, ns, set string, filters []string, read func(*bolt.Bucket, string) T, fields func(T) filter.Fields) (out []T, err error) {
	f, err := filter.Parse(filters...)
	if err != nil {
		return nil, err
	}
	err = db.bolt.View(func(tx *bolt.Tx) error {
		return eachBucket(at(tx, ns, set), func(name string, b *bolt.Bucket) error {
			if r := read(b, name); f.Match(fields(r)) {
				out = append(out, r)
			}
			return nil
		})
	})
	return out, err
}
