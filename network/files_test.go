package network

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
)

func TestHostsFile(t *testing.T) {
	const base = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n" +
		"ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
	ip := netip.MustParseAddr
	for _, c := range []struct {
		name    string
		o       HostsOptions
		want    string
		refused bool
	}{
		{"a container without a network has loopback alone", HostsOptions{Hostname: "c"}, base, false},
		{
			"its address has its name",
			HostsOptions{Hostname: "c", Addrs: []netip.Addr{ip("172.17.0.2")}},
			base + "172.17.0.2\tc\n", false,
		},
		{
			"a domain comes before the short name",
			HostsOptions{Hostname: "c", Domainname: "d.org", Addrs: []netip.Addr{ip("172.17.0.2")}},
			base + "172.17.0.2\tc.d.org c\n", false,
		},
		{
			"extra hosts in every spelling",
			HostsOptions{
				Extra:   []string{"a:10.0.0.1", "b=10.0.0.2", "c:::1", "d:[::2]", "e=host-gateway"},
				Gateway: ip("172.17.0.1"),
			},
			base + "10.0.0.1\ta\n10.0.0.2\tb\n::1\tc\n::2\td\n172.17.0.1\te\n", false,
		},
		{"an extra host without address is refused", HostsOptions{Extra: []string{"a"}}, "", true},
		{"an extra host with a bad address is refused", HostsOptions{Extra: []string{"a:1.2.3"}}, "", true},
		{"an extra host cannot add lines", HostsOptions{Extra: []string{"a\n6.6.6.6 b:1.2.3.4"}}, "", true},
		{"no host-gateway without a gateway", HostsOptions{Extra: []string{"a:host-gateway"}}, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Hosts(c.o)
			if string(got) != c.want || errdefs.IsInvalidArgument(err) != c.refused {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestResolvFile(t *testing.T) {
	ip := netip.MustParseAddr
	for _, c := range []struct {
		name, host string
		o          ResolvOptions
		want       string
	}{
		{
			"the host's loopback servers are left out", "# x\nnameserver 127.0.0.53\nnameserver 10.1.1.1\nsearch a.org b.org\noptions edns0 trust-ad\n",
			ResolvOptions{},
			"nameserver 10.1.1.1\nsearch a.org b.org\noptions edns0 trust-ad\n",
		},
		{"public servers if none is left", "nameserver 127.0.0.1\n", ResolvOptions{}, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		{"loopback servers stay in the host's namespace", "nameserver 127.0.0.1\n", ResolvOptions{HostNetwork: true}, "nameserver 127.0.0.1\n"},
		{
			"what the user says comes first", "nameserver 10.1.1.1\nsearch a.org\noptions edns0\n",
			ResolvOptions{Servers: []netip.Addr{ip("1.1.1.1")}, Search: []string{"c.org"}, Options: []string{"timeout:1"}},
			"nameserver 1.1.1.1\nsearch c.org\noptions timeout:1\n",
		},
		{"a dot means no search list", "nameserver 10.1.1.1\nsearch a.org\n", ResolvOptions{Search: []string{"."}}, "nameserver 10.1.1.1\n"},
		{
			"the embedded server is the only one", "nameserver 10.1.1.1\nsearch a.org\noptions edns0\n",
			ResolvOptions{Embedded: true, Servers: []netip.Addr{ip("1.1.1.1")}},
			"nameserver 127.0.0.11\nsearch a.org\noptions edns0 ndots:0\n",
		},
		{"the user's ndots stays", "", ResolvOptions{Embedded: true, Options: []string{"ndots:2"}}, "nameserver 127.0.0.11\noptions ndots:2\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(parseResolv([]byte(c.host)).forContainer(c.o).text()); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}
