package metadata

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The sets of objects in a namespace.
const (
	images     = "images"
	containers = "containers"
	snapshots  = "snapshots"
	blobs      = "content"
	leases     = "leases"
	sandboxes  = "sandboxes"
)

// The keys of objects.
var (
	keyCreatedAt   = []byte("createdat")
	keyUpdatedAt   = []byte("updatedat")
	keyLabels      = []byte("labels")
	keyAnnotations = []byte("annotations")
	keyName        = []byte("name")
	keyParent      = []byte("parent")
	keyChildren    = []byte("children")
	keySize        = []byte("size")
	keyDigest      = []byte("digest")
	keyMediaType   = []byte("mediatype")
	keyTarget      = []byte("target")
	keySpec        = []byte("spec")
	keyImage       = []byte("image")
	keySnapshotter = []byte("snapshotter")
	keySnapshotKey = []byte("snapshotKey")
	keySandboxID   = []byte("sandboxid")
	keySandboxer   = []byte("sandboxer")
	keyRuntime     = []byte("runtime")
	keyOptions     = []byte("options")
	keyExtensions  = []byte("extensions")
	keyRef         = []byte("ref")
	keyExpireAt    = []byte("expireat")
	keyExpected    = []byte("expected")
)

// at walks from schema v1 to a bucket, nil where one on the way is missing.
func at(tx *bolt.Tx, path ...string) *bolt.Bucket {
	return below(tx.Bucket([]byte("v1")), path...)
}

func below(b *bolt.Bucket, path ...string) *bolt.Bucket {
	for _, p := range path {
		if b == nil {
			return nil
		}
		b = b.Bucket([]byte(p))
	}
	return b
}

// makeAt walks from schema v1 to a bucket and makes what is missing.
func makeAt(tx *bolt.Tx, path ...string) (*bolt.Bucket, error) {
	return makeBelow(tx.Bucket([]byte("v1")), path...)
}

func makeBelow(b *bolt.Bucket, path ...string) (_ *bolt.Bucket, err error) {
	for _, p := range path {
		if b, err = b.CreateBucketIfNotExists([]byte(p)); err != nil {
			return nil, fmt.Errorf("make bucket %q: %w", p, err)
		}
	}
	return b, nil
}

// makeNew makes the bucket name below b; it must not be there.
func makeNew(b *bolt.Bucket, kind, name string) (*bolt.Bucket, error) {
	if b.Bucket([]byte(name)) != nil {
		return nil, fmt.Errorf("%s %q: %w", kind, name, errdefs.ErrAlreadyExists)
	}
	nb, err := b.CreateBucket([]byte(name))
	if err != nil {
		return nil, fmt.Errorf("make %s %q: %w", kind, name, err)
	}
	return nb, nil
}

// eachBucket calls fn for every bucket in b, which may be nil.
func eachBucket(b *bolt.Bucket, fn func(name string, b *bolt.Bucket) error) error {
	if b == nil {
		return nil
	}
	return b.ForEachBucket(func(k []byte) error { return fn(string(k), b.Bucket(k)) })
}

// eachKey calls fn for every key in b, which may be nil.
func eachKey(b *bolt.Bucket, fn func(key string)) {
	if b == nil {
		return
	}
	c := b.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		fn(string(k))
	}
}

func notFound(kind, name string) error {
	return fmt.Errorf("%s %q: %w", kind, name, errdefs.ErrNotFound)
}

// put writes the pairs whose value is not empty.
func put(b *bolt.Bucket, pairs ...[2][]byte) error {
	for _, p := range pairs {
		if len(p[1]) == 0 {
			continue
		}
		if err := b.Put(p[0], p[1]); err != nil {
			return fmt.Errorf("write %s: %w", p[0], err)
		}
	}
	return nil
}

// set is put for one string, which may be emptied.
func set(b *bolt.Bucket, key []byte, value string) error {
	if value == "" {
		return b.Delete(key)
	}
	return b.Put(key, []byte(value))
}

func readMap(b *bolt.Bucket, key []byte) map[string]string {
	mb := b.Bucket(key)
	if mb == nil {
		return nil
	}
	m := map[string]string{}
	mb.ForEach(func(k, v []byte) error {
		m[string(k)] = string(v)
		return nil
	})
	return m
}

// writeMap replaces a map. A label with an empty value is none, as in containerd.
func writeMap(b *bolt.Bucket, key []byte, m map[string]string) error {
	if b.Bucket(key) != nil {
		if err := b.DeleteBucket(key); err != nil {
			return err
		}
	}
	if len(m) == 0 {
		return nil
	}
	mb, err := b.CreateBucket(key)
	if err != nil {
		return err
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if err := put(mb, [2][]byte{[]byte(k), []byte(m[k])}); err != nil {
			return err
		}
	}
	return nil
}

// maxLabel is the length in bytes of a label's key and value together (containerd
// api, "combined size of a key/value pair").
const maxLabel = 4096

// CheckLabels says what is wrong with labels.
func CheckLabels(m map[string]string) error { return checkLabels(m) }

func checkLabels(m map[string]string) error {
	for k, v := range m {
		if k == "" {
			return fmt.Errorf("label without a key: %w", errdefs.ErrInvalidArgument)
		}
		if len(k)+len(v) > maxLabel {
			return fmt.Errorf("label %.64s: %d bytes, want %d at most: %w", k, len(k)+len(v), maxLabel, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func labelsOf(b *bolt.Bucket) map[string]string { return readMap(b, keyLabels) }

func writeLabels(b *bolt.Bucket, m map[string]string) error {
	if err := checkLabels(m); err != nil {
		return err
	}
	return writeMap(b, keyLabels, m)
}

// editMap gives the map that is now, with the fields that paths name taken from
// next: "FIELD" is all of it, "FIELD.KEY" one key. Paths of other fields are not
// looked at.
func editMap[V any](now, next map[string]V, field string, paths []string) map[string]V {
	for _, p := range paths {
		if p == field {
			now = maps.Clone(next)
		} else if k, ok := strings.CutPrefix(p, field+"."); ok {
			if now == nil {
				now = map[string]V{}
			}
			if v, ok := next[k]; ok {
				now[k] = v
			} else {
				delete(now, k)
			}
		}
	}
	return now
}

// editLabels is editMap for labels, of which an empty value is none.
func editLabels(now, next map[string]string, paths []string) map[string]string {
	now = editMap(now, next, "labels", paths)
	maps.DeleteFunc(now, func(_, v string) bool { return v == "" })
	return now
}

// EditLabels is editLabels for what is kept elsewhere, with both checked; no path
// is all labels.
func EditLabels(now, next map[string]string, paths []string) (map[string]string, error) {
	if len(paths) == 0 {
		paths = []string{"labels"}
	}
	if err := checkPaths(paths, "labels."); err != nil {
		return nil, err
	}
	now = editLabels(now, next, paths)
	return now, checkLabels(now)
}

// checkPaths refuses field paths that name none of the fields. A field that ends
// in a dot is a map, of which a path may name one key.
func checkPaths(paths []string, fields ...string) error {
	named := func(p string) bool {
		return slices.ContainsFunc(fields, func(f string) bool {
			field, isMap := strings.CutSuffix(f, ".")
			return p == field || isMap && strings.HasPrefix(p, f)
		})
	}
	for _, p := range paths {
		if !named(p) {
			return fmt.Errorf("field path %q: want one of %s: %w", p, strings.Join(fields, ", "), errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

func readTime(b *bolt.Bucket, key []byte) (t time.Time) {
	if v := b.Get(key); v != nil && t.UnmarshalBinary(v) != nil {
		return time.Time{}
	}
	return t
}

func writeTime(b *bolt.Bucket, key []byte, t time.Time) error {
	v, err := t.UTC().MarshalBinary()
	if err != nil {
		return err
	}
	return b.Put(key, v)
}

// stamp writes both times of an object that is new.
func stamp(b *bolt.Bucket, t time.Time) error {
	if err := writeTime(b, keyCreatedAt, t); err != nil {
		return err
	}
	return writeTime(b, keyUpdatedAt, t)
}

func stampOf(b *bolt.Bucket, key []byte) *timestamppb.Timestamp {
	return timestamppb.New(readTime(b, key))
}

func readAny(b *bolt.Bucket, key []byte) *anypb.Any {
	v := b.Get(key)
	if v == nil {
		return nil
	}
	var a anypb.Any
	if proto.Unmarshal(v, &a) != nil {
		return nil
	}
	return &a
}

func writeAny(b *bolt.Bucket, key []byte, a *anypb.Any) error {
	if a == nil {
		return b.Delete(key)
	}
	v, err := proto.Marshal(a)
	if err != nil {
		return fmt.Errorf("write %s: %w", key, err)
	}
	return b.Put(key, v)
}

func varint(n int64) []byte {
	return binary.AppendVarint(nil, n)
}

func readVarint(b []byte) int64 {
	n, _ := binary.Varint(b)
	return n
}
