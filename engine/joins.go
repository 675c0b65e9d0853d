package engine

// Where the nouns of the engine meet. Each noun is one struct; what it asks of
// another stands here, so that a reader sees all of it at once.
//
// Import moby's API packages under other names than our types: eventsapi,
// systemapi; and dockernet for its network, beside our package network.

import (
	"context"
	"net/netip"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	dockernet "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// resolved is an image as a container needs it.
type resolved struct {
	Name     string             // in full: "docker.io/library/busybox:latest"
	Target   ocispec.Descriptor // what the name points to; its digest is the image ID
	Manifest ocispec.Descriptor // of the platform chosen
	Config   digest.Digest
	Image    dockerspec.DockerOCIImage
	ChainID  string // the snapshot of all layers; "" for an image without layers
}

// imageResolver is what containers ask of images:
//
//	// resolve finds the image that ref names (a name with or without tag or
//	// digest, or an ID or a prefix of one) for platform, nil being the host's.
//	// Not found is errdefs.ErrNotFound with the text "No such image: NAME:TAG".
//	// It is on the path of every start: answers are cached by the target's digest.
//	func (i *images) resolve(ctx context.Context, ref string, platform *ocispec.Platform) (*resolved, error)
//	// unpack makes the snapshot of r.ChainID where it is missing.
//	func (i *images) unpack(ctx context.Context, r *resolved) error

// volumeUse is one volume that a container mounts.
type volumeUse struct {
	Name    string // "" asks for an anonymous one
	Driver  string // "" is "local"
	Options map[string]string
	Labels  map[string]string
}

// mountedVolume is a volume on this host.
type mountedVolume struct {
	Name   string
	Driver string
	Path   string // of its content on the host
	New    bool   // it was made by this call, so an image's content is copied in
}

// What containers ask of volumes:
//
//	// ensure finds the volume or makes it.
//	func (v *volumes) ensure(ctx context.Context, use volumeUse) (mountedVolume, error)
//	// mount makes the content of a volume visible at Path for the container id
//	// (a local volume with type=, o=, device= options is mounted now), and
//	// unmount ends it. Both may be called again.
//	func (v *volumes) mount(ctx context.Context, name, id string) (path string, err error)
//	func (v *volumes) unmount(ctx context.Context, name, id string) error
//	// removeAnonymous removes those of names that are anonymous and unused.
//	func (v *volumes) removeAnonymous(ctx context.Context, names []string) error

// netWish is what a container wants of the network when it starts.
type netWish struct {
	ID           string // container ID
	Name         string // container name, without slash
	Hostname     string
	Domainname   string
	Mode         container.NetworkMode
	Endpoints    map[string]*dockernet.EndpointSettings // by network name, as the user gave them
	PortBindings dockernet.PortMap
	Exposed      dockernet.PortSet
	PublishAll   bool
	DNS          []netip.Addr
	DNSSearch    []string
	DNSOptions   []string
	ExtraHosts   []string
}

// netSandbox is a container's network while it runs.
type netSandbox struct {
	ID        string // "" where the container has no namespace of its own
	Path      string // of the network namespace for config.json; "" is the host's
	Endpoints map[string]*dockernet.EndpointSettings
	Ports     dockernet.PortMap
	Hosts     []byte // content of /etc/hosts
	Resolv    []byte // content of /etc/resolv.conf
}

// What containers ask of networks:
//
//	// check validates a wish at create: unknown networks are no error before the
//	// start, wrong addresses and modes are.
//	func (n *networks) check(w netWish) error
//	// up makes the sandbox for every mode but "host", "none" (a namespace with
//	// loopback alone) and "container:", or leaves nothing behind.
//	func (n *networks) up(ctx context.Context, w netWish) (netSandbox, error)
//	// down takes it apart. When it returns, addresses and ports are free again;
//	// what is slow goes on behind it. No sandbox is no error.
//	func (n *networks) down(ctx context.Context, id string) error
//	// restore says which containers run, so that the sandboxes of all others are
//	// taken apart; called once, before the first up.
//	func (n *networks) restore(ctx context.Context, live map[string]netWish) error
//	// renamed makes a container that runs known by its new name.
//	func (n *networks) renamed(ctx context.Context, id, name, hostname string, eps map[string]*dockernet.EndpointSettings) error
//	func (n *networks) close() error

// user is a container as another noun sees it.
type user struct {
	ID      string
	Name    string // without slash
	Running bool
	Created int64 // seconds
	ImageID digest.Digest
	// What a network asks of one that joins it.
	Hostname string
	Mode     container.NetworkMode
}

// What containers answer to the other nouns (container_query.go):
//
//	func (c *containers) usingImage(id digest.Digest) []user
//	func (c *containers) usingVolume(name string) []user
//	func (c *containers) usingNetwork(name, id string) []user
//	func (c *containers) counts() (running, paused, stopped int)
//	// editNetworks runs f on the endpoints of the container that ref names while
//	// nothing else happens to it, and keeps what f leaves there.
//	func (c *containers) editNetworks(ctx context.Context, ref string, f func(u user, eps map[string]*dockernet.EndpointSettings) error) error
//	// list is GET /containers/json without filters, with sizes if asked.
//	func (c *containers) summaries(ctx context.Context, size bool) ([]container.Summary, error)
//
// What events answer:
//
//	func (ev *events) publish(typ eventsapi.Type, action eventsapi.Action, id string, attributes map[string]string)

var _ context.Context
