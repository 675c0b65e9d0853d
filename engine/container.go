package engine

import (
	"context"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantryd/gantry/api/journey"
	"github.com/gantryd/gantry/engine/internal/ctrd"
)

// containers is every container, by ID and by name. containerd has the truth; the
// index is made from it at the start and follows it.
type containers struct {
	cfg    Config
	ctrd   *ctrd.Client
	events *events

	appArmor *appArmor
	seLinux  seLinux

	images   *images
	volumes  *volumes
	networks *networks
	execs    *execs

	life context.Context // ends with the engine: for what outlives a request
	work sync.WaitGroup  // all of that

	mu       sync.RWMutex
	byID     map[string]*ctr
	names    map[string]string // name without slash to ID, reserved before the record exists
	journeys map[string][]journey.Span
	told     []string          // IDs of journeys, the oldest first
	lower    map[string]string // chain ID to the overlay's option for its layers; a cache
}

func newContainers(life context.Context, cfg Config, client *ctrd.Client, ev *events) *containers {
	return &containers{
		cfg: cfg, ctrd: client, events: ev, life: life,
		appArmor: newAppArmor(), seLinux: newSELinux(cfg),
		byID: map[string]*ctr{}, names: map[string]string{},
		journeys: map[string][]journey.Span{}, lower: map[string]string{},
	}
}

func (c *containers) routes() []route {
	const get, post = http.MethodGet, http.MethodPost
	return []route{
		{post, "/containers/create", c.postCreate},
		{get, "/containers/json", c.getList},
		{post, "/containers/prune", c.postPrune},
		{get, "/containers/{id}/json", c.getInspect},
		{get, "/containers/{id}/top", c.getTop},
		{get, "/containers/{id}/logs", c.getLogs},
		{get, "/containers/{id}/changes", c.getChanges},
		{get, "/containers/{id}/export", c.getExport},
		{get, "/containers/{id}/stats", c.getStats},
		{get, "/containers/{id}/journey", c.getJourney},
		{post, "/containers/{id}/start", c.postStart},
		{post, "/containers/{id}/stop", c.postStop},
		{post, "/containers/{id}/restart", c.postRestart},
		{post, "/containers/{id}/kill", c.postKill},
		{post, "/containers/{id}/pause", c.postPause},
		{post, "/containers/{id}/unpause", c.postUnpause},
		{post, "/containers/{id}/resize", c.postResize},
		{post, "/containers/{id}/rename", c.postRename},
		{post, "/containers/{id}/update", c.postUpdate},
		{post, "/containers/{id}/wait", c.postWait},
		{post, "/containers/{id}/attach", c.postAttach},
		{get, "/containers/{id}/attach/ws", c.getAttachWebsocket},
		{http.MethodHead, "/containers/{id}/archive", c.headArchive},
		{get, "/containers/{id}/archive", c.getArchive},
		{http.MethodPut, "/containers/{id}/archive", c.putArchive},
		{http.MethodDelete, "/containers/{id}", c.delete},
		{post, "/commit", c.postCommit},
	}
}

// goroutine runs f beside the requests; settle waits for it.
func (c *containers) goroutine(f func(ctx context.Context)) {
	c.work.Go(func() { f(c.life) })
}

// settleTime is how long Close waits for work under way: what is left, the next
// start finds half done and finishes.
const settleTime = 5 * time.Second

// settle waits for what runs beside the requests.
func (c *containers) settle() {
	done := make(chan struct{})
	go func() { c.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(settleTime):
	}
}

// validName is the rule for the name of a container.
var validName = regexp.MustCompile(`^/?[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// reserve gives name to id, if nobody has it.
func (c *containers) reserve(name, id string) error {
	if !validName.MatchString(name) {
		return invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	name = strings.TrimPrefix(name, "/")
	c.mu.Lock()
	defer c.mu.Unlock()
	if owner, taken := c.names[name]; taken && owner != id {
		return conflict("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, owner)
	}
	c.names[name] = id
	return nil
}

// release takes name from id.
func (c *containers) release(name, id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.names[name] == id {
		delete(c.names, name)
	}
}

// add makes k known.
func (c *containers) add(k *ctr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.byID[k.id] = k
}

// forget makes k, and its name, unknown.
func (c *containers) forget(k *ctr) {
	rec := k.snapshot()
	c.mu.Lock()
	delete(c.byID, k.id)
	if c.names[rec.Name] == k.id {
		delete(c.names, rec.Name)
	}
	c.mu.Unlock()
	c.releaseLabels(rec)
}

// find gives the container that ref names: an ID, a name with or without slash,
// or the beginning of one ID alone.
func (c *containers) find(ref string) (*ctr, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if k, ok := c.byID[ref]; ok {
		return k, nil
	}
	if id, ok := c.names[strings.TrimPrefix(ref, "/")]; ok && c.byID[id] != nil {
		return c.byID[id], nil
	}
	var found *ctr
	if ref != "" {
		for id, k := range c.byID {
			if !strings.HasPrefix(id, ref) {
				continue
			}
			if found != nil {
				return nil, invalid("multiple IDs found with provided prefix: %s", ref)
			}
			found = k
		}
	}
	if found == nil {
		return nil, notFound("No such container: %s", ref)
	}
	return found, nil
}

// all gives every container, the newest first.
func (c *containers) all() []*ctr {
	c.mu.RLock()
	ks := make([]*ctr, 0, len(c.byID))
	for _, k := range c.byID {
		ks = append(ks, k)
	}
	c.mu.RUnlock()
	slices.SortFunc(ks, func(a, b *ctr) int { return b.created.Compare(a.created) })
	return ks
}
