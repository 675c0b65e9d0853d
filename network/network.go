package network

import (
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Config says where the networks of one daemon live and what is assumed where
// nobody asks.
type Config struct {
	Root  string // directory; the networks and their options, they outlive a boot
	State string // directory, best on tmpfs; pinned namespaces and leases, a boot forgets them
	// Bridge is the device of the default network, and the name of the nftables
	// tables: "gantry0" unless told. At most 15 bytes.
	Bridge string
	// Subnet is the IPv4 prefix of the default network, "172.17.0.0/16" unless
	// told; if untold and taken by a route of the host, the next free /16 of
	// 172.16.0.0/12. A Bridge that exists with an address keeps it.
	Subnet string
	// PublishAddress is the host address of a published port that names none. The
	// zero Addr means every IPv4 address; 127.0.0.1 makes loopback the default.
	PublishAddress netip.Addr
	// Pool is how many namespaces are kept prepared; 0 means 4, below 0 none.
	Pool int
	Log  *slog.Logger // slog.Default() if nil
}

// The names of the networks that are always there.
const (
	Default = "bridge" // the default bridge network
	Host    = "host"   // the host's own network; nothing can be joined to it
	None    = "none"   // loopback alone
)

// Network is one network. In a call of Create only Name is needed.
type Network struct {
	ID      string // 64 hexadecimal digits
	Name    string
	Driver  string // "bridge"; "host" and "null" for the networks Host and None
	Created time.Time
	// Internal networks have no way out: no default route, no published ports, no
	// forwarding of DNS queries.
	Internal bool
	// IPv6 asks for an IPv6 subnet (unique local, RFC 4193) when Subnets has none.
	IPv6    bool
	Subnets []Subnet // empty: an IPv4 prefix is chosen that no route of the host has
	// Device is the bridge's interface name; "br-" and 12 digits of ID unless told.
	Device string
	MTU    int // bytes; 0 is the kernel's 1500
	// Isolated keeps the containers of this network from each other.
	Isolated bool
	// NoMasquerade leaves the source addresses of what goes out as they are.
	NoMasquerade bool
	// PublishAddress replaces Config.PublishAddress for this network, if valid.
	PublishAddress netip.Addr

	// What the owner wants kept with the network; not looked at.
	Labels  map[string]string
	Options map[string]string
}

// Subnet is one prefix of a network.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr   // the bridge's address; the first of Prefix unless told
	Range   netip.Prefix // where addresses are chosen from; Prefix unless told
	// Reserved are addresses never given out, by the name of what has them.
	Reserved map[string]netip.Addr
}

// Sandbox is a network namespace and what it is joined to.
type Sandbox struct {
	ID string
	// Path of the pinned namespace, for linux.namespaces[].path of config.json.
	// NewSandbox and Join may each be called at any time before the path is opened.
	Path      string
	Created   time.Time
	DNS       []netip.Addr // as SandboxOptions has it
	Endpoints []Endpoint   // in the order of Join; the first with a gateway has the default route
	Ports     []Port       // as Publish answered
}

// SandboxOptions of NewSandbox.
type SandboxOptions struct {
	// Network that will be joined first, by name or ID, so that a namespace
	// prepared for it can be taken. Empty or None: loopback alone (others can still
	// be joined, more slowly).
	Network string
	// DNS servers that 127.0.0.11 asks for this sandbox; the host's if empty.
	DNS []netip.Addr
}

// EndpointOptions of Join; the zero value is good.
type EndpointOptions struct {
	Addrs  []netip.Addr     // wanted addresses, at most one of each family
	MAC    net.HardwareAddr // 02:42 and the IPv4 address unless told
	IfName string           // the first free of eth0, eth1, … unless told
	// Aliases are the names by which others on a user-defined network find this
	// endpoint; the first one answers reverse lookups.
	Aliases []string
	// Links are names that this endpoint's sandbox alone knows, each with the name
	// that it stands for.
	Links map[string]string
}

// Endpoint is a sandbox's place in a network.
type Endpoint struct {
	ID        string // 64 hexadecimal digits
	SandboxID string
	NetworkID string
	Network   string           // name of the network
	IfName    string           // in the sandbox
	HostIf    string           // the other end, on the bridge
	Addrs     []netip.Prefix   // IPv4 first
	Gateways  []netip.Addr     // one for each family; none in an internal network
	MAC       net.HardwareAddr // of IfName
	Aliases   []string
	Links     map[string]string
}

// Port is one published port.
type Port struct {
	Proto         string // "tcp", "udp" or "sctp"
	ContainerPort uint16
	HostIP        netip.Addr // invalid: the network's or the daemon's PublishAddress
	HostPort      uint16     // 0: any free one
	// HostPortEnd, if above HostPort, makes the first free port of
	// [HostPort, HostPortEnd] enough.
	HostPortEnd uint16
}

// Counters of one interface, as the sandbox sees it.
type Counters struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}
