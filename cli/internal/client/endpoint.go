package client

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"
)

// DefaultAddress is where gantryd listens unless told otherwise.
const DefaultAddress = "unix:///run/gantry/engine.sock"

// Endpoint is where a daemon is, and how to get there.
type Endpoint struct {
	// Address is what the user gave: unix:///run/x.sock, tcp://host:2375, ssh://user@host.
	Address string
	scheme  string
	target  string // path, host:port, or the ssh URL
	tls     func() (*tls.Config, error)
}

// ParseEndpoint reads an address as DOCKER_HOST has it. The TLS configuration is
// asked for when a TCP connection is made; nil is plain TCP.
func ParseEndpoint(address string, tlsConfig func() (*tls.Config, error)) (Endpoint, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	if !ok {
		return Endpoint{}, fmt.Errorf("invalid host %q: want unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST", address)
	}
	e := Endpoint{Address: address, scheme: scheme, target: rest, tls: tlsConfig}
	switch scheme {
	case "unix":
		if rest == "" {
			return Endpoint{}, fmt.Errorf("invalid host %q: no path", address)
		}
	case "tcp", "http", "https":
		u, err := url.Parse(address)
		if err != nil {
			return Endpoint{}, fmt.Errorf("invalid host %q: %w", address, err)
		}
		e.target = u.Host
		if u.Port() == "" {
			e.target = net.JoinHostPort(u.Hostname(), e.defaultPort())
		}
	case "ssh":
		e.target = address
	default:
		return Endpoint{}, fmt.Errorf("invalid host %q: unknown scheme %q", address, scheme)
	}
	return e, nil
}

func (e Endpoint) defaultPort() string {
	if e.tls != nil || e.scheme == "https" {
		return "2376"
	}
	return "2375"
}

// host is the Host header: a socket has none, and servers want one that parses.
func (e Endpoint) host() string {
	if e.scheme == "unix" || e.scheme == "ssh" {
		return "api.gantry.localhost"
	}
	return e.target
}

// Dial connects to the daemon.
func (e Endpoint) Dial(ctx context.Context) (net.Conn, error) {
	switch e.scheme {
	case "unix":
		var d net.Dialer
		return d.DialContext(ctx, "unix", e.target)
	case "ssh":
		return dialSSH(ctx, e.target)
	}
	d := net.Dialer{Timeout: 30 * time.Second}
	if e.tls == nil && e.scheme != "https" {
		return d.DialContext(ctx, "tcp", e.target)
	}
	config := &tls.Config{}
	if e.tls != nil {
		var err error
		if config, err = e.tls(); err != nil {
			return nil, err
		}
	}
	return (&tls.Dialer{NetDialer: &d, Config: config}).DialContext(ctx, "tcp", e.target)
}

// dialSSH connects to the engine of another machine through the standard streams
// of `docker system dial-stdio` there, as docker does.
func dialSSH(ctx context.Context, address string) (net.Conn, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	var args []string
	if u.User != nil {
		args = append(args, "-l", u.User.Username())
	}
	if p := u.Port(); p != "" {
		args = append(args, "-p", p)
	}
	args = append(args, "-o", "ConnectTimeout=30", "-T", "--", u.Hostname(), "docker", "system", "dial-stdio")
	cmd := exec.CommandContext(ctx, "ssh", args...)
	cmd.Stderr = os.Stderr
	return startPiped(cmd)
}
