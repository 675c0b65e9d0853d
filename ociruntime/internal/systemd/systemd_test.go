package systemd

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestNamesLeadToGroups(t *testing.T) {
	for _, c := range []struct{ name, cgroupsPath, unit, group string }{
		{"all three parts", "machine.slice:libpod:box", "libpod-box.scope", "/machine.slice/libpod-box.scope"},
		{"no prefix", "machine.slice::box", "box.scope", "/machine.slice/box.scope"},
		{"no slice", ":docker:box", "docker-box.scope", "/system.slice/docker-box.scope"},
		{"nothing", "", "gantry-id.scope", "/system.slice/gantry-id.scope"},
		{"a slice in slices", "a-b-c.slice:x:y", "x-y.scope", "/a.slice/a-b.slice/a-b-c.slice/x-y.scope"},
		{"the root slice", "-.slice:x:y", "x-y.scope", "/x-y.scope"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := ParseName(c.cgroupsPath, "system.slice", "id")
			if err != nil {
				t.Fatal(err)
			}
			group, err := n.Group()
			if err != nil || n.Unit != c.unit || group != c.group {
				t.Errorf("unit %s in %s, want %s in %s, %v", n.Unit, group, c.unit, c.group, err)
			}
		})
	}
}

func TestLimitsBecomeProperties(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	un := func(v uint64) *uint64 { return &v }
	for _, c := range []struct {
		name string
		r    specs.LinuxResources
		v2   bool
		want []Property
	}{
		{"memory of v1", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(1 << 20), Swap: n(2 << 20)}}, false, []Property{{"MemoryLimit", uint64(1 << 20)}}},
		{"memory of v2, swap without it", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(1 << 20), Swap: n(3 << 20)}}, true, []Property{{"MemoryMax", uint64(1 << 20)}, {"MemorySwapMax", uint64(2 << 20)}}},
		{"no limit", specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: n(-1)}, Pids: &specs.LinuxPids{Limit: n(-1)}}, true, []Property{{"MemoryMax", uint64(math.MaxUint64)}, {"TasksMax", uint64(math.MaxUint64)}}},
		{"shares and weight", specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: un(1024)}}, true, []Property{{"CPUWeight", uint64(100)}}},
		{"a quota rounds up", specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: n(33333), Period: un(100000)}}, true, []Property{{"CPUQuotaPeriodUSec", uint64(100000)}, {"CPUQuotaPerSecUSec", uint64(340000)}}},
		{"processors are bits", specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "0-2,9"}}, true, []Property{{"AllowedCPUs", []byte{7, 2}}}},
		{"unified", specs.LinuxResources{Unified: map[string]string{"cpu.max": "max 50000"}}, true, []Property{{"CPUQuotaPeriodUSec", uint64(50000)}, {"CPUQuotaPerSecUSec", uint64(math.MaxUint64)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Limits(&c.r, c.v2)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("have %v, want %v, %v", got, c.want, err)
			}
		})
	}
}

func TestAnnotationsAreValues(t *testing.T) {
	for text, want := range map[string]any{
		"true": true, "7": int32(7), "uint64 123456789": uint64(123456789), "'a b'": "a b", `"it's"`: "it's",
		"['a', 'b']": []string{"a", "b"}, "@as []": []string{}, "1.5": 1.5, "int64 -1": int64(-1),
	} {
		got, err := Annotated(map[string]string{"org.systemd.property.X": text, "other": "?"})
		if err != nil || !reflect.DeepEqual(got, []Property{{"X", want}}) {
			t.Errorf("%s is %v, want %v, %v", text, got, want, err)
		}
	}
	if got, err := Annotated(map[string]string{"org.systemd.property.TimeoutStopSec": "1.5"}); err != nil || !reflect.DeepEqual(got, []Property{{"TimeoutStopUSec", uint64(1500000)}}) {
		t.Errorf("seconds are %v, %v", got, err)
	}
	for _, text := range []string{"", "'open", "['a' 'b']", "[1]", "uint32 -1", "uint32", "byte 3", "'a' b"} {
		if got, err := Annotated(map[string]string{"org.systemd.property.X": text}); err == nil || !strings.Contains(err.Error(), "org.systemd.property.X") {
			t.Errorf("%q is taken for %v, %v", text, got, err)
		}
	}
}

func TestMessagesAreReadAsWritten(t *testing.T) {
	b, err := call(7, "d", "/p", "i", "M", "name", []Property{{"A", true}, {"B", []Pair{{"x", "rw"}}}}, []unit(nil))
	if err != nil {
		t.Fatal(err)
	}
	m, err := parse(b)
	if err != nil || m.kind != methodCall || m.member != "M" || m.sig != "sa(sv)a(sa(sv))" || m.body.str() != "name" {
		t.Errorf("read %+v, %v", m, err)
	}
}

func TestBrokenMessagesAreRefused(t *testing.T) {
	b, err := call(7, "d", "/p", "i", "M", "name")
	if err != nil {
		t.Fatal(err)
	}
	for n := fixedHeader; n < len(b)-len("\x04\x00\x00\x00name\x00"); n++ {
		if m, err := parse(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are read as %+v", n, len(b), m)
		}
	}
	for i := range b {
		for _, v := range []byte{0, 1, 0x7f, 0xff} {
			broken := append([]byte(nil), b...)
			broken[i] = v
			if m, err := parse(broken); err == nil { // or an error, but no panic
				m.body.str()
			}
		}
	}
}

func TestDevicesAreAList(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	none, all := specs.LinuxDeviceCgroup{Access: "rwm"}, specs.LinuxDeviceCgroup{Allow: true, Access: "rwm"}
	null := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n(1), Minor: n(3), Access: "rwm"}
	nodes := specs.LinuxDeviceCgroup{Allow: true, Type: "b", Major: n(-1), Minor: n(-1), Access: "m"}
	mem := specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n(1), Access: "r"} // major 1 is "mem" everywhere
	for _, c := range []struct {
		name  string
		rules []specs.LinuxDeviceCgroup
		want  []Property
	}{
		{"a node", []specs.LinuxDeviceCgroup{none, null}, []Property{{"DevicePolicy", "strict"}, {"DeviceAllow", []Pair{{"/dev/char/1:3", "rwm"}}}}},
		{"every node, and a driver's", []specs.LinuxDeviceCgroup{none, nodes, mem}, []Property{{"DevicePolicy", "strict"}, {"DeviceAllow", []Pair{{"block-*", "m"}, {"char-mem", "r"}}}}},
		{"all is allowed", []specs.LinuxDeviceCgroup{none, null, all}, []Property{{"DevicePolicy", "auto"}, {"DeviceAllow", []Pair(nil)}}},
		{"a later denial of all", []specs.LinuxDeviceCgroup{null, none}, []Property{{"DevicePolicy", "strict"}, {"DeviceAllow", []Pair(nil)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Devices(c.rules); !reflect.DeepEqual(got, c.want) {
				t.Errorf("have %v, want %v", got, c.want)
			}
		})
	}
}
