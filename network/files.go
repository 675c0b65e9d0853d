package network

import "net/netip"

// HostsOptions of Hosts.
type HostsOptions struct {
	Hostname   string
	Domainname string
	Addrs      []netip.Addr // the container's own; they get Hostname
	// Extra are lines as the command line writes them, "NAME:ADDRESS" or
	// "NAME=ADDRESS", where ADDRESS may be in brackets or "host-gateway".
	Extra []string
	// Gateway is what "host-gateway" stands for.
	Gateway netip.Addr
}

// Hosts writes /etc/hosts of a container. Errors: InvalidArgument.
func Hosts(o HostsOptions) ([]byte, error) { return nil, nil }

// ResolvOptions of Resolv. What is empty is taken from the host.
type ResolvOptions struct {
	// Embedded is for containers in user-defined networks: they ask 127.0.0.11,
	// and Servers are asked by it (SandboxOptions.DNS).
	Embedded bool
	Servers  []netip.Addr
	Search   []string // "." alone means none
	Options  []string
}

// Resolv writes /etc/resolv.conf of a container, from the host's where o says
// nothing: without the host's loopback servers, which a container could not reach,
// and with public servers if none is left.
func Resolv(o ResolvOptions) ([]byte, error) { return nil, nil }
