package metadata

import (
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// The labels by which clients tell the collector what they need (containerd
// docs/garbage-collection.md).
const (
	labelRoot         = "containerd.io/gc.root"
	labelExpire       = "containerd.io/gc.expire"
	labelFlat         = "containerd.io/gc.flat"
	labelRefContent   = "containerd.io/gc.ref.content"
	labelRefImage     = "containerd.io/gc.ref.image"
	labelRefSnapshot  = "containerd.io/gc.ref.snapshot."
	labelBackRefOf    = "containerd.io/gc.bref."
	labelBackSnapshot = "containerd.io/gc.bref.snapshot."
	labelCondSnapshot = "containerd.io/gc.cond.snapshot"
	labelUsedAt       = "containerd.io/gc.cond.value-usedat"
)

// node is a thing that can be needed: a kind ("content", "ingests", "image",
// "container", or "snapshots/NAME"), in a namespace.
type node struct {
	kind, ns, key string
}

// graph is what needs what.
type graph struct {
	tx     *bolt.Tx
	back   map[node][]node // by gc.bref: who is kept by whom
	marked map[node]bool   // true: its references were followed
	todo   []node
}

// garbage is the records that nothing needs.
type garbage struct {
	leases, images, blobs []node
	ingests               []deadIngest
	snapshots             []deadSnapshot
}

type deadIngest struct {
	ns, ref, below string
	expected       digest.Digest
}

type deadSnapshot struct{ ns, snapshotter, key, below string }

func (g garbage) empty() bool {
	return len(g.leases)+len(g.images)+len(g.blobs)+len(g.ingests)+len(g.snapshots) == 0
}

// garbageOf marks from the roots and gives what was not reached.
func (db *DB) garbageOf(tx *bolt.Tx) (out garbage) {
	g := &graph{tx: tx, back: map[node][]node{}, marked: map[node]bool{}}
	now := time.Now()
	eachBucket(at(tx), func(ns string, b *bolt.Bucket) error {
		g.backRefs(ns, b, now)
		out.leases = append(out.leases, g.leaseRoots(ns, b, now)...)
		g.objectRoots(ns, b, now)
		return nil
	})
	g.follow()
	eachBucket(at(tx), func(ns string, b *bolt.Bucket) error {
		g.unmarked(ns, b, now, &out)
		return nil
	})
	// The snapshots of a snapshotter that is not here are a containerd's, which may
	// be back tomorrow.
	out.snapshots = slices.DeleteFunc(out.snapshots, func(s deadSnapshot) bool { return db.snapshots[s.snapshotter] == nil })
	return out
}

// backRefs notes who is kept by a label of its own on whom.
func (g *graph) backRefs(ns string, b *bolt.Bucket, now time.Time) {
	note := func(n node, b *bolt.Bucket) {
		eachLabel(b, labelBackRefOf, func(k, v string) {
			by := node{ns: ns, key: v}
			switch rest := strings.TrimPrefix(k, labelBackRefOf); {
			case strings.HasPrefix(k, labelBackSnapshot):
				sn, _, _ := strings.Cut(strings.TrimPrefix(k, labelBackSnapshot), "/")
				by.kind = snapshots + "/" + sn
			case hasWord(rest, "content"):
				by.kind = blobs
			case hasWord(rest, "image"):
				by.kind = images
			case hasWord(rest, "container"):
				by.kind = containers
			default:
				return
			}
			g.back[by] = append(g.back[by], n)
		})
	}
	eachBucket(below(b, images), func(name string, b *bolt.Bucket) error {
		note(node{images, ns, name}, b)
		g.conditions(node{images, ns, name}, b, now)
		return nil
	})
	eachBucket(below(b, blobs, "blob"), func(dgst string, b *bolt.Bucket) error {
		note(node{blobs, ns, dgst}, b)
		g.conditions(node{blobs, ns, dgst}, b, now)
		return nil
	})
	eachSnapshot(b, func(sn, key string, b *bolt.Bucket) { note(node{snapshots + "/" + sn, ns, key}, b) })
}

// conditions notes the snapshots by which n, a blob or image, is kept as long as
// they are used: "usedat<24h,…|KEY" is a snapshot that says of itself that it was
// used less than 24 hours ago. One of the conditions is enough.
func (g *graph) conditions(n node, b *bolt.Bucket, now time.Time) {
	eachLabel(b, labelCondSnapshot, func(k, v string) {
		sn, _, _ := strings.Cut(strings.TrimLeft(strings.TrimPrefix(k, labelCondSnapshot), "./"), "/")
		conditions, key, ok := strings.Cut(v, "|")
		sb := at(g.tx, n.ns, snapshots, sn, key)
		if !ok || sb == nil {
			return
		}
		used, err := time.Parse(time.RFC3339, labelsOf(sb)[labelUsedAt])
		if err != nil {
			return
		}
		for c := range strings.SplitSeq(conditions, ",") {
			if holds(c, now.Sub(used)) {
				by := node{snapshots + "/" + sn, n.ns, key}
				g.back[by] = append(g.back[by], n)
				return
			}
		}
	})
}

// holds says whether a condition is met by what was used so long ago. One that is
// not known is not.
func holds(condition string, ago time.Duration) bool {
	for _, op := range []string{"<", ">"} {
		limit, ok := strings.CutPrefix(condition, "usedat"+op)
		d, err := time.ParseDuration(limit)
		if ok && err == nil {
			return op == "<" && ago < d || op == ">" && ago > d
		}
	}
	return false
}

// leaseRoots marks what living leases hold and gives the dead ones.
func (g *graph) leaseRoots(ns string, b *bolt.Bucket, now time.Time) (dead []node) {
	eachBucket(below(b, leases), func(id string, b *bolt.Bucket) error {
		labels := labelsOf(b)
		if expired(labels, now) {
			dead = append(dead, node{leases, ns, id})
			return nil
		}
		mark := g.mark
		if labels[labelFlat] != "" {
			mark = g.markFlat
		}
		eachKey(below(b, blobs), func(dgst string) { mark(node{blobs, ns, dgst}) })
		eachKey(below(b, images), func(name string) { mark(node{images, ns, name}) })
		eachKey(below(b, "ingests"), func(ref string) { g.markFlat(node{"ingests", ns, ref}) })
		return eachBucket(below(b, snapshots), func(sn string, b *bolt.Bucket) error {
			eachKey(b, func(key string) { mark(node{snapshots + "/" + sn, ns, key}) })
			return nil
		})
	})
	return dead
}

// expired says whether the labels give a time that has passed. One that cannot be
// read is none.
func expired(labels map[string]string, now time.Time) bool {
	t, err := time.Parse(time.RFC3339, labels[labelExpire])
	return err == nil && now.After(t)
}

// objectRoots marks images and containers, and what has a root label.
func (g *graph) objectRoots(ns string, b *bolt.Bucket, now time.Time) {
	eachBucket(below(b, images), func(name string, b *bolt.Bucket) error {
		if !expired(labelsOf(b), now) {
			g.mark(node{images, ns, name})
		}
		return nil
	})
	eachBucket(below(b, containers), func(id string, _ *bolt.Bucket) error {
		g.mark(node{containers, ns, id})
		return nil
	})
	eachBucket(below(b, sandboxes), func(_ string, b *bolt.Bucket) error {
		g.labelRefs(ns, b)
		return nil
	})
	eachBucket(below(b, blobs, "blob"), func(dgst string, b *bolt.Bucket) error {
		if isRoot(b) {
			g.mark(node{blobs, ns, dgst})
		}
		return nil
	})
	eachSnapshot(b, func(sn, key string, b *bolt.Bucket) {
		if isRoot(b) {
			g.mark(node{snapshots + "/" + sn, ns, key})
		}
	})
}

func isRoot(b *bolt.Bucket) bool {
	lb := b.Bucket(keyLabels)
	return lb != nil && len(lb.Get([]byte(labelRoot))) > 0
}

// mark notes that n is needed, and all that it refers to.
func (g *graph) mark(n node) {
	if !g.marked[n] {
		g.marked[n] = true
		g.todo = append(g.todo, n)
	}
}

// markFlat notes that n is needed, without its labels' references. A snapshot
// always needs its parents, and an image its target.
func (g *graph) markFlat(n node) {
	if _, ok := g.marked[n]; ok {
		return
	}
	g.marked[n] = false
	switch kind, sn, _ := strings.Cut(n.kind, "/"); kind {
	case images:
		if t := at(g.tx, n.ns, images, n.key, "target"); t != nil {
			g.markFlat(node{blobs, n.ns, string(t.Get(keyDigest))})
		}
	case snapshots:
		if b := at(g.tx, n.ns, snapshots, sn, n.key); b != nil && len(b.Get(keyParent)) > 0 {
			g.markFlat(node{n.kind, n.ns, string(b.Get(keyParent))})
		}
	}
}

func (g *graph) follow() {
	for len(g.todo) > 0 {
		n := g.todo[len(g.todo)-1]
		g.todo = g.todo[:len(g.todo)-1]
		for _, by := range g.back[n] {
			g.mark(by)
		}
		g.references(n)
	}
}

// references marks what n refers to by its fields and its labels.
func (g *graph) references(n node) {
	switch kind, sn, _ := strings.Cut(n.kind, "/"); kind {
	case images:
		b := at(g.tx, n.ns, images, n.key)
		if t := below(b, "target"); t != nil {
			g.mark(node{blobs, n.ns, string(t.Get(keyDigest))})
		}
		g.labelRefs(n.ns, b)
	case containers:
		b := at(g.tx, n.ns, containers, n.key)
		if sn, key := b.Get(keySnapshotter), b.Get(keySnapshotKey); len(sn) > 0 && len(key) > 0 {
			g.mark(node{snapshots + "/" + string(sn), n.ns, string(key)})
		}
		g.labelRefs(n.ns, b)
	case blobs:
		g.labelRefs(n.ns, at(g.tx, n.ns, blobs, "blob", n.key))
	case snapshots:
		b := at(g.tx, n.ns, snapshots, sn, n.key)
		if b == nil {
			return
		}
		if p := b.Get(keyParent); len(p) > 0 {
			g.mark(node{n.kind, n.ns, string(p)})
		}
		g.labelRefs(n.ns, b)
	}
}

// labelRefs marks what the labels of b name.
func (g *graph) labelRefs(ns string, b *bolt.Bucket) {
	eachLabel(b, "containerd.io/gc.ref.", func(k, v string) {
		switch {
		case hasWord(k, labelRefContent):
			g.mark(node{blobs, ns, v})
		case hasWord(k, labelRefImage):
			g.mark(node{images, ns, v})
		case strings.HasPrefix(k, labelRefSnapshot):
			sn, _, _ := strings.Cut(strings.TrimPrefix(k, labelRefSnapshot), "/")
			g.mark(node{snapshots + "/" + sn, ns, v})
		}
	})
}

// hasWord says whether key is word, or goes on after it with a dot or slash.
func hasWord(key, word string) bool {
	rest, ok := strings.CutPrefix(key, word)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '/')
}

// eachLabel calls fn for the labels of b, which may be nil, that begin with prefix.
func eachLabel(b *bolt.Bucket, prefix string, fn func(k, v string)) {
	lb := below(b, "labels")
	if lb == nil {
		return
	}
	c := lb.Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && strings.HasPrefix(string(k), prefix); k, v = c.Next() {
		fn(string(k), string(v))
	}
}

func eachSnapshot(ns *bolt.Bucket, fn func(sn, key string, b *bolt.Bucket)) {
	eachBucket(below(ns, snapshots), func(sn string, b *bolt.Bucket) error {
		return eachBucket(b, func(key string, b *bolt.Bucket) error {
			fn(sn, key, b)
			return nil
		})
	})
}

// unmarked adds to out what of a namespace was not reached.
func (g *graph) unmarked(ns string, b *bolt.Bucket, now time.Time, out *garbage) {
	eachBucket(below(b, images), func(name string, _ *bolt.Bucket) error {
		if n := (node{images, ns, name}); !g.has(n) {
			out.images = append(out.images, n)
		}
		return nil
	})
	eachBucket(below(b, blobs, "blob"), func(dgst string, _ *bolt.Bucket) error {
		if n := (node{blobs, ns, dgst}); !g.has(n) {
			out.blobs = append(out.blobs, n)
		}
		return nil
	})
	eachBucket(below(b, blobs, "ingests"), func(ref string, b *bolt.Bucket) error {
		if expires := readTime(b, keyExpireAt); !g.has(node{"ingests", ns, ref}) && now.After(expires) {
			out.ingests = append(out.ingests, deadIngest{ns, ref, string(b.Get(keyRef)), digest.Digest(b.Get(keyExpected))})
		}
		return nil
	})
	eachSnapshot(b, func(sn, key string, b *bolt.Bucket) {
		if !g.has(node{snapshots + "/" + sn, ns, key}) {
			out.snapshots = append(out.snapshots, deadSnapshot{ns, sn, key, string(b.Get(keyName))})
		}
	})
}

func (g *graph) has(n node) bool {
	_, ok := g.marked[n]
	return ok
}
