package network

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
)

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
func Hosts(o HostsOptions) ([]byte, error) {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n" +
		"::1\tlocalhost ip6-localhost ip6-loopback\n" +
		"fe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\n" +
		"ff02::1\tip6-allnodes\n" +
		"ff02::2\tip6-allrouters\n")
	for _, extra := range o.Extra {
		name, a, err := extraHost(extra, o.Gateway)
		if err != nil {
			return nil, fmt.Errorf("write hosts file: %w", err)
		}
		fmt.Fprintf(&b, "%s\t%s\n", a, name)
	}
	names := o.Hostname
	if o.Domainname != "" {
		names = o.Hostname + "." + o.Domainname + " " + o.Hostname
	}
	for _, a := range o.Addrs {
		if names != "" {
			fmt.Fprintf(&b, "%s\t%s\n", a, names)
		}
	}
	return b.Bytes(), nil
}

func extraHost(line string, gateway netip.Addr) (name string, a netip.Addr, err error) {
	i := strings.IndexAny(line, ":=")
	if i <= 0 || strings.ContainsAny(line, " \t\r\n") {
		return "", a, fmt.Errorf("extra host %q is not NAME:ADDRESS: %w", line, errdefs.ErrInvalidArgument)
	}
	name, value := line[:i], line[i+1:]
	if value == "host-gateway" {
		if !gateway.IsValid() {
			return "", a, fmt.Errorf("extra host %q: there is no gateway to the host: %w", line, errdefs.ErrInvalidArgument)
		}
		return name, gateway, nil
	}
	if strings.HasPrefix(value, "[") && strings.HasSuffix(value, "]") {
		value = value[1 : len(value)-1]
	}
	if a, err = netip.ParseAddr(value); err != nil {
		return "", a, fmt.Errorf("extra host %q: %q is not an IP address: %w", line, value, errdefs.ErrInvalidArgument)
	}
	return name, a, nil
}

// ResolvOptions of Resolv. What is empty is taken from the host.
type ResolvOptions struct {
	// Embedded is for containers in user-defined networks: they ask 127.0.0.11,
	// and Servers are asked by it (SandboxOptions.DNS).
	Embedded bool
	// HostNetwork is for containers in the host's namespace: they reach the host's
	// loopback servers too.
	HostNetwork bool
	Servers     []netip.Addr
	Search      []string // "." alone means none
	Options     []string
}

// embedded is the address of the DNS server inside sandboxes.
var embedded = netip.AddrFrom4([4]byte{127, 0, 0, 11})

// Resolv writes /etc/resolv.conf of a container, from the host's where o says
// nothing: without the host's loopback servers, which a container could not reach,
// and with public servers if none is left.
func Resolv(o ResolvOptions) ([]byte, error) {
	host, err := hostResolv()
	if err != nil {
		return nil, err
	}
	return host.forContainer(o).text(), nil
}

// resolv is what a resolv.conf says (resolv.conf(5)).
type resolv struct {
	servers []netip.Addr
	search  []string
	options []string
}

// The host's file, and the one where systemd-resolved has the servers that its own
// stub at 127.0.0.53 asks.
const (
	resolvPath   = "/etc/resolv.conf"
	resolvedPath = "/run/systemd/resolve/resolv.conf"
)

func hostResolv() (resolv, error) {
	b, err := os.ReadFile(resolvPath)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return resolv{}, fmt.Errorf("read the host's name servers: %w", err)
	}
	host := parseResolv(b)
	if len(host.servers) == 1 && host.servers[0] == netip.AddrFrom4([4]byte{127, 0, 0, 53}) {
		if b, err := os.ReadFile(resolvedPath); err == nil {
			return parseResolv(b), nil
		}
	}
	return host, nil
}

func parseResolv(b []byte) resolv {
	var r resolv
	for line := range strings.Lines(string(b)) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(words[0], "#") || strings.HasPrefix(words[0], ";") {
			continue
		}
		switch words[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(words[1]); err == nil {
				r.servers = append(r.servers, a)
			}
		case "search", "domain":
			r.search = words[1:] // the last one counts
		case "options":
			r.options = append(r.options, words[1:]...)
		}
	}
	return r
}

func (r resolv) forContainer(o ResolvOptions) resolv {
	switch {
	case o.Embedded:
		r.servers = []netip.Addr{embedded}
	case len(o.Servers) > 0:
		r.servers = o.Servers
	case !o.HostNetwork:
		r.servers = slices.DeleteFunc(slices.Clone(r.servers), func(a netip.Addr) bool {
			return a.IsLoopback() || a.IsLinkLocalUnicast()
		})
		if len(r.servers) == 0 {
			r.servers = publicServers()
		}
	}
	if len(o.Search) > 0 {
		r.search = slices.DeleteFunc(slices.Clone(o.Search), func(s string) bool { return s == "." })
	}
	if len(o.Options) > 0 {
		r.options = o.Options
	}
	if o.Embedded && !slices.ContainsFunc(r.options, func(s string) bool { return strings.HasPrefix(s, "ndots:") }) {
		// Names of containers have no dots and are asked for as they are.
		r.options = append(slices.Clone(r.options), "ndots:0")
	}
	return r
}

// publicServers are asked where the host has none that a container can reach.
func publicServers() []netip.Addr {
	return []netip.Addr{netip.AddrFrom4([4]byte{8, 8, 8, 8}), netip.AddrFrom4([4]byte{8, 8, 4, 4})}
}

func (r resolv) text() []byte {
	var b bytes.Buffer
	for _, a := range r.servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(r.search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.search, " "))
	}
	if len(r.options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.options, " "))
	}
	return b.Bytes()
}
