package option

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/network"
)

// Ports reads --publish and --expose: the ports that the container says it has,
// and where on the host they are to be found.
func Ports(publish, expose []string) (network.PortSet, network.PortMap, error) {
	set, bound := network.PortSet{}, network.PortMap{}
	for _, p := range publish {
		if strings.Contains(p, "=") {
			long, err := longPort(p)
			if err != nil {
				return nil, nil, err
			}
			p = long
		}
		if err := publishOne(p, set, bound); err != nil {
			return nil, nil, err
		}
	}
	for _, e := range expose {
		if strings.Contains(e, ":") {
			return nil, nil, fmt.Errorf("invalid port format for --expose: %s", e)
		}
		r, err := network.ParsePortRange(e)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %w", err)
		}
		for p := range r.All() {
			set[p] = struct{}{}
		}
	}
	return set, bound, nil
}

// publishOne reads [[IP:][HOST[-HOST]]:]PORT[-PORT][/PROTOCOL].
func publishOne(spec string, set network.PortSet, bound network.PortMap) error {
	rest, proto, has := strings.Cut(spec, "/")
	if !has {
		proto = "tcp"
	}
	ip, host, inside := splitPort(rest)
	if inside == "" {
		return fmt.Errorf("no port specified: %s<empty>", spec)
	}
	switch strings.ToLower(proto) {
	case "tcp", "udp", "sctp":
	default:
		return fmt.Errorf("invalid proto: %s", proto)
	}
	addr, err := hostIP(ip)
	if err != nil {
		return err
	}
	r, err := network.ParsePortRange(inside + "/" + proto)
	if err != nil {
		return fmt.Errorf("invalid containerPort: %s", inside)
	}
	first, last, err := hostRange(host)
	if err != nil {
		return err
	}
	n, m := int(r.End()-r.Start()), last-first
	if host != "" && n != m && n != 0 {
		// A range on the host for one port inside means: any of them.
		return fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", inside, host)
	}
	i := 0
	for p := range r.All() {
		set[p] = struct{}{}
		b := network.PortBinding{HostIP: addr}
		switch {
		case host == "":
		case n == 0 && m > 0:
			b.HostPort = strconv.Itoa(first) + "-" + strconv.Itoa(last)
		default:
			b.HostPort = strconv.Itoa(first + i)
		}
		bound[p] = append(bound[p], b)
		i++
	}
	return nil
}

// splitPort splits from the right: an IPv6 address has colons of its own.
func splitPort(s string) (ip, host, inside string) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", s
	}
	rest, inside := s[:i], s[i+1:]
	if i = strings.LastIndexByte(rest, ':'); i < 0 {
		return "", rest, inside
	}
	return rest[:i], rest[i+1:], inside
}

func hostIP(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	plain := s
	if len(s) > 1 && s[0] == '[' && s[len(s)-1] == ']' {
		plain = s[1 : len(s)-1]
	}
	addr, err := netip.ParseAddr(plain)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("invalid IP address: %s", s)
	}
	return addr, nil
}

func hostRange(s string) (first, last int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	a, b, ranged := strings.Cut(s, "-")
	if !ranged {
		b = a
	}
	x, errA := strconv.ParseUint(a, 10, 16)
	y, errB := strconv.ParseUint(b, 10, 16)
	if errA != nil || errB != nil || y < x {
		return 0, 0, fmt.Errorf("invalid hostPort: %s", s)
	}
	return int(x), int(y), nil
}

// longPort reads target=80,published=8080,protocol=tcp and gives the short form.
func longPort(s string) (string, error) {
	v := map[string]string{"protocol": "tcp"}
	for field := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(field, "=")
		if !ok || value == "" {
			return "", fmt.Errorf("invalid field: %s", field)
		}
		switch key {
		case "target", "published", "protocol", "mode":
			v[key] = strings.ToLower(value)
		default:
			return "", fmt.Errorf("invalid field key: %s", key)
		}
	}
	if v["target"] == "" {
		return "", fmt.Errorf("missing mandatory field '%q'", "target")
	}
	if v["published"] == "" {
		return v["target"] + "/" + v["protocol"], nil
	}
	return v["published"] + ":" + v["target"] + "/" + v["protocol"], nil
}

// checkHost reads one --add-host: NAME:IP or NAME=IP.
func checkHost(s string) (string, error) {
	name, ip, ok := strings.Cut(s, "=")
	if !ok {
		name, ip, ok = strings.Cut(s, ":")
	}
	if !ok || name == "" {
		return "", fmt.Errorf("bad format for add-host: %q", s)
	}
	if ip == "host-gateway" {
		return name + ":" + ip, nil
	}
	if len(ip) > 2 && ip[0] == '[' && ip[len(ip)-1] == ']' {
		ip = ip[1 : len(ip)-1]
	}
	if net.ParseIP(ip) == nil {
		return "", fmt.Errorf("invalid IP address in add-host: %q", ip)
	}
	return name + ":" + ip, nil
}
