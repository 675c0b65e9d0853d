package engine

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/gantryd/gantry/network"
)

func TestPortsToPublish(t *testing.T) {
	local := netip.MustParseAddr("127.0.0.1")
	tcp80, udp53 := dockernet.MustParsePort("80/tcp"), dockernet.MustParsePort("53/udp")
	bind := func(p dockernet.Port, bs ...dockernet.PortBinding) netWish {
		return netWish{PortBindings: dockernet.PortMap{p: bs}}
	}
	for _, c := range []struct {
		name string
		w    netWish
		want []network.Port
		err  string
	}{
		{"none", netWish{}, nil, ""},
		{"a fixed port", bind(tcp80, dockernet.PortBinding{HostPort: "8080"}), []network.Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8080}}, ""},
		{"any port", bind(tcp80, dockernet.PortBinding{}), []network.Port{{Proto: "tcp", ContainerPort: 80}}, ""},
		{"no binding is any port", bind(tcp80), []network.Port{{Proto: "tcp", ContainerPort: 80}}, ""},
		{"one of a range", bind(tcp80, dockernet.PortBinding{HostPort: "8000-8010"}), []network.Port{{Proto: "tcp", ContainerPort: 80, HostPort: 8000, HostPortEnd: 8010}}, ""},
		{"at an address", bind(udp53, dockernet.PortBinding{HostIP: local, HostPort: "53"}), []network.Port{{Proto: "udp", ContainerPort: 53, HostIP: local, HostPort: 53}}, ""},
		{"what is exposed is published, once", netWish{
			PublishAll: true, Exposed: dockernet.PortSet{tcp80: {}, udp53: {}}, PortBindings: dockernet.PortMap{udp53: {{HostPort: "53"}}},
		}, []network.Port{{Proto: "tcp", ContainerPort: 80}, {Proto: "udp", ContainerPort: 53, HostPort: 53}}, ""},
		{"too large a port", bind(tcp80, dockernet.PortBinding{HostPort: "65536"}), nil, "invalid port specification"},
		{"a word", bind(tcp80, dockernet.PortBinding{HostPort: "http"}), nil, "invalid port specification"},
		{"a range the wrong way round", bind(tcp80, dockernet.PortBinding{HostPort: "9-8"}), nil, "invalid port specification"},
		{"a protocol in the host's port", bind(tcp80, dockernet.PortBinding{HostPort: "80/udp"}), nil, "invalid port specification"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := portWishes(c.w)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || statusOf(err) != 400 {
					t.Fatalf("got %v, want %q", err, c.err)
				}
				return
			}
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestWhatACreateOfANetworkAsksFor(t *testing.T) {
	off := false
	prefix := netip.MustParsePrefix
	for _, c := range []struct {
		name   string
		req    dockernet.CreateRequest
		status int // 0: it is taken
		check  func(network.Network) bool
	}{
		{"a name is enough", dockernet.CreateRequest{Name: "n"}, 0, func(w network.Network) bool { return w.Name == "n" && len(w.Subnets) == 0 }},
		{"no name", dockernet.CreateRequest{Name: " "}, 400, nil},
		{"a name that is always there", dockernet.CreateRequest{Name: "host"}, 403, nil},
		{"an unknown driver", dockernet.CreateRequest{Name: "n", Driver: "weave"}, 404, nil},
		{"a second host network", dockernet.CreateRequest{Name: "n", Driver: "host"}, 403, nil},
		{"a network of a cluster", dockernet.CreateRequest{Name: "n", Scope: "swarm"}, 503, nil},
		{"without IPv4", dockernet.CreateRequest{Name: "n", EnableIPv4: &off}, 501, nil},
		{"a subnet", dockernet.CreateRequest{Name: "n", IPAM: &dockernet.IPAM{Config: []dockernet.IPAMConfig{{Subnet: prefix("10.0.0.0/24")}}}}, 0, func(w network.Network) bool {
			return len(w.Subnets) == 1 && w.Subnets[0].Prefix == prefix("10.0.0.0/24")
		}},
		{"a subnet with a host part", dockernet.CreateRequest{Name: "n", IPAM: &dockernet.IPAM{Config: []dockernet.IPAMConfig{{Subnet: prefix("10.0.0.7/24")}}}}, 400, nil},
		{"a gateway without a subnet", dockernet.CreateRequest{Name: "n", IPAM: &dockernet.IPAM{Config: []dockernet.IPAMConfig{{Gateway: netip.MustParseAddr("10.0.0.1")}}}}, 400, nil},
		{"options of the bridge", dockernet.CreateRequest{Name: "n", Options: map[string]string{
			optionICC: "false", optionMasquerade: "0", optionMTU: "1400", optionName: "br7", optionPublish: "127.0.0.1",
		}}, 0, func(w network.Network) bool {
			return w.Isolated && w.NoMasquerade && w.MTU == 1400 && w.Device == "br7" && w.PublishAddress.String() == "127.0.0.1"
		}},
		{"an option that is no truth value", dockernet.CreateRequest{Name: "n", Options: map[string]string{optionICC: "maybe"}}, 400, nil},
		{"an MTU that is no number", dockernet.CreateRequest{Name: "n", Options: map[string]string{optionMTU: "-1"}}, 400, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := wishedNetwork(c.req)
			if c.status != 0 {
				if err == nil || statusOf(err) != c.status {
					t.Fatalf("got %v, want status %d", err, c.status)
				}
				return
			}
			if err != nil || !c.check(w) {
				t.Errorf("got %+v, %v", w, err)
			}
		})
	}
}

func TestNetworksOfAContainerAreChecked(t *testing.T) {
	ip := func(s string) *dockernet.EndpointSettings {
		return &dockernet.EndpointSettings{IPAMConfig: &dockernet.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(s)}}
	}
	for _, c := range []struct {
		name string
		eps  map[string]*dockernet.EndpointSettings
		ok   bool
	}{
		{"the default bridge", map[string]*dockernet.EndpointSettings{"bridge": {}}, true},
		{"an address in one's own network", map[string]*dockernet.EndpointSettings{"n": ip("10.0.0.2")}, true},
		{"an address in the default bridge", map[string]*dockernet.EndpointSettings{"bridge": ip("10.0.0.2")}, false},
		{"an IPv6 address as the IPv4 one", map[string]*dockernet.EndpointSettings{"n": ip("fd00::2")}, false},
		{"an alias in one's own network", map[string]*dockernet.EndpointSettings{"n": {Aliases: []string{"a"}}}, true},
		{"an alias in the default bridge", map[string]*dockernet.EndpointSettings{"bridge": {Aliases: []string{"a"}}}, false},
		{"host and another one", map[string]*dockernet.EndpointSettings{"host": {}, "n": {}}, false},
		{"two of one's own", map[string]*dockernet.EndpointSettings{"m": {}, "n": {}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := (&networks{}).check(netWish{Endpoints: c.eps})
			if (err == nil) != c.ok || err != nil && statusOf(err) != 400 {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestANetworkIsRefusedToAContainer(t *testing.T) {
	own := network.Network{ID: "1", Name: "n"}
	for _, c := range []struct {
		name string
		to   network.Network
		u    user
		eps  map[string]*dockernet.EndpointSettings
		want int
	}{
		{"one of its own", own, user{}, nil, 0},
		{"of another container", own, user{Mode: "container:x"}, nil, 400},
		{"of the host", own, user{Mode: "host", Running: true}, nil, 400},
		{"to the host", network.Network{Name: "host"}, user{}, nil, 400},
		{"to none", network.Network{Name: "none"}, user{}, nil, 400},
		{"from none", own, user{}, map[string]*dockernet.EndpointSettings{"none": {}}, 400},
		{"twice", own, user{Mode: container.NetworkMode("n")}, map[string]*dockernet.EndpointSettings{"n": {}}, 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := connectable(c.to, c.u, c.eps)
			if c.want == 0 && err != nil || c.want != 0 && (err == nil || statusOf(err) != c.want) {
				t.Errorf("got %v, want status %d", err, c.want)
			}
		})
	}
}

func TestTheDefaultRouteIsThatOfTheHighestPriorityThenName(t *testing.T) {
	got := joinOrder(map[string]*dockernet.EndpointSettings{"b": {}, "a": {}, "z": {GwPriority: 5}, "y": {GwPriority: -1}})
	if want := []string{"z", "a", "b", "y"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNamesInANetworkAreThereOnce(t *testing.T) {
	id := "0123456789abcdef"
	got := dnsNames(id, "web", "0123456789ab", []string{"www", "web", ""})
	if want := []string{"web", "www", "0123456789ab"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
