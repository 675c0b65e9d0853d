package systemd

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
)

// Accounting turns on the controllers that a container is counted by.
func Accounting(v2 bool) []Property {
	io := "BlockIOAccounting"
	if v2 {
		io = "IOAccounting"
	}
	return []Property{{"CPUAccounting", true}, {"MemoryAccounting", true}, {"TasksAccounting", true}, {io, true}}
}

// Limits are the limits of r that systemd has words for
// (systemd.resource-control(5)). It writes them into the cgroup's files again
// whenever it reloads, so it must know them. All limits are written into the
// files as well: what systemd has no words for needs it, and the rest does no harm.
func Limits(r *specs.LinuxResources, v2 bool) ([]Property, error) {
	var l props
	word := func(one, two string) string {
		if v2 {
			return two
		}
		return one
	}
	if m := r.Memory; m != nil {
		l.limit(word("MemoryLimit", "MemoryMax"), m.Limit)
		if v2 {
			l.limit("MemoryLow", m.Reservation)
			l.swap(m)
		}
	}
	if c := r.CPU; c != nil {
		switch {
		case c.Shares == nil || *c.Shares == 0:
		case v2:
			l.add("CPUWeight", cgroup.CPUWeight(*c.Shares))
		default:
			l.add("CPUShares", *c.Shares)
		}
		l.quota(c.Quota, c.Period)
		if v2 {
			if err := errors.Join(l.mask("AllowedCPUs", c.Cpus), l.mask("AllowedMemoryNodes", c.Mems)); err != nil {
				return nil, err
			}
		}
	}
	if p := r.Pids; p != nil && p.Limit != nil {
		if *p.Limit < 0 {
			l.add("TasksMax", uint64(math.MaxUint64))
		} else {
			l.add("TasksMax", uint64(max(*p.Limit, 1)))
		}
	}
	if b := r.BlockIO; b != nil && b.Weight != nil && *b.Weight != 0 {
		if v2 {
			l.add("IOWeight", cgroup.IOWeight(uint64(*b.Weight)))
		} else {
			l.add("BlockIOWeight", uint64(*b.Weight))
		}
	}
	return l, l.unified(r.Unified)
}

// props collects properties.
type props []Property

func (l *props) add(name string, value any) { *l = append(*l, Property{name, value}) }

// limit is a number of bytes; below zero is no limit.
func (l *props) limit(name string, v *int64) {
	switch {
	case v == nil || *v == 0:
	case *v < 0:
		l.add(name, uint64(math.MaxUint64))
	default:
		l.add(name, uint64(*v))
	}
}

// swap is without the memory that the specification's number includes.
func (l *props) swap(m *specs.LinuxMemory) {
	switch {
	case m.Swap == nil || *m.Swap == 0:
	case *m.Swap < 0:
		l.add("MemorySwapMax", uint64(math.MaxUint64))
	case m.Limit != nil && *m.Limit > 0 && *m.Swap >= *m.Limit:
		l.add("MemorySwapMax", uint64(*m.Swap-*m.Limit))
	}
}

// quota is CPU time per second of time. systemd keeps whole hundredths; more is
// better than less.
func (l *props) quota(quota *int64, period *uint64) {
	if period != nil && *period != 0 {
		l.add("CPUQuotaPeriodUSec", *period)
	}
	switch {
	case quota == nil || *quota == 0:
	case *quota < 0:
		l.add("CPUQuotaPerSecUSec", uint64(math.MaxUint64))
	default:
		const second, hundredth, usual = 1000000, 10000, 100000
		p := uint64(usual)
		if period != nil && *period != 0 {
			p = *period
		}
		perSecond := uint64(*quota) * second / p
		l.add("CPUQuotaPerSecUSec", (perSecond+hundredth-1)/hundredth*hundredth)
	}
}

// mask is a list of numbers and ranges, "0-3,7", as a bit each.
func (l *props) mask(name, list string) error {
	if list == "" {
		return nil
	}
	const most = 1 << 16
	var bits []byte
	for part := range strings.SplitSeq(list, ",") {
		low, high, isRange := strings.Cut(strings.TrimSpace(part), "-")
		from, err := strconv.ParseUint(low, 10, 32)
		to := from
		if err == nil && isRange {
			to, err = strconv.ParseUint(high, 10, 32)
		}
		if err != nil || to < from || to >= most {
			return fmt.Errorf("%s: %q is no list of numbers", name, list)
		}
		for n := from; n <= to; n++ {
			for uint64(len(bits)) <= n/8 {
				bits = append(bits, 0)
			}
			bits[n/8] |= 1 << (n % 8)
		}
	}
	l.add(name, bits)
	return nil
}

// unified are the files of cgroup v2 that systemd has words for.
func (l *props) unified(files map[string]string) error {
	words := map[string]string{
		"cpu.weight": "CPUWeight", "pids.max": "TasksMax", "io.weight": "IOWeight",
		"memory.min": "MemoryMin", "memory.low": "MemoryLow", "memory.high": "MemoryHigh",
		"memory.max": "MemoryMax", "memory.swap.max": "MemorySwapMax",
	}
	for file, value := range files {
		value = strings.TrimSpace(value)
		switch file {
		case "cpuset.cpus":
			if err := l.mask("AllowedCPUs", value); err != nil {
				return err
			}
		case "cpuset.mems":
			if err := l.mask("AllowedMemoryNodes", value); err != nil {
				return err
			}
		case "cpu.max":
			l.cpuMax(value)
		default:
			name, ok := words[file]
			if !ok {
				continue
			}
			if value == "max" {
				l.add(name, uint64(math.MaxUint64))
			} else if n, err := strconv.ParseUint(strings.TrimPrefix(value, "default "), 10, 64); err == nil {
				l.add(name, n) // what is no number, the kernel refuses
			}
		}
	}
	return nil
}

func (l *props) cpuMax(value string) {
	first, second, _ := strings.Cut(value, " ")
	quota, err := strconv.ParseInt(first, 10, 64)
	if err != nil {
		quota = -1
	}
	period, _ := strconv.ParseUint(second, 10, 64)
	l.quota(&quota, &period)
}

// Devices are the rules as a list of what is allowed. systemd's list cannot take
// back a part of what it allows: it is the bound, and the rules in the cgroup
// itself say the rest.
func Devices(rules []specs.LinuxDeviceCgroup) []Property {
	majors, _ := os.ReadFile("/proc/devices")
	var list []Pair
	for _, r := range rules {
		everything := (r.Type == "" || r.Type == "a") && r.Major == nil && r.Minor == nil
		switch {
		case everything && !r.Allow:
			list = nil
		case everything:
			return []Property{{"DevicePolicy", "auto"}, {"DeviceAllow", []Pair(nil)}}
		case r.Allow:
			if name := deviceName(r, string(majors)); name != "" {
				list = append(list, Pair{name, r.Access})
			}
		}
	}
	return []Property{{"DevicePolicy", "strict"}, {"DeviceAllow", list}}
}

// deviceName is the device of a rule in the words of DeviceAllow: a node by its
// numbers, or all of a major number by the driver's name in /proc/devices.
func deviceName(r specs.LinuxDeviceCgroup, majors string) string {
	kind := map[string]string{"c": "char", "b": "block"}[r.Type]
	any := func(n *int64) bool { return n == nil || *n < 0 }
	switch {
	case kind == "":
		return ""
	case any(r.Major):
		return kind + "-*"
	case !any(r.Minor):
		return fmt.Sprintf("/dev/%s/%d:%d", kind, *r.Major, *r.Minor)
	}
	section := ""
	for line := range strings.SplitSeq(majors, "\n") {
		fields := strings.Fields(line)
		switch {
		case strings.HasSuffix(line, "devices:"):
			section = strings.ToLower(strings.TrimSuffix(fields[0], "acter"))
		case len(fields) == 2 && section == kind && fields[0] == strconv.FormatInt(*r.Major, 10):
			return kind + "-" + fields[1]
		}
	}
	return ""
}

// annotation begins the annotations that are properties of the unit: the rest of
// the key is the name, the value is in GVariant's text form.
const annotation = "org.systemd.property."

// Annotated are the properties that annotations ask for. A name that ends in
// "Sec" is of seconds, and stands for systemd's own one of microseconds.
func Annotated(annotations map[string]string) ([]Property, error) {
	var l props
	for key, text := range annotations {
		name, ok := strings.CutPrefix(key, annotation)
		if !ok {
			continue
		}
		value, err := parseValue(text)
		if err != nil || name == "" {
			return nil, fmt.Errorf("annotations: %s: %q is no value: %w", key, text, err)
		}
		if base, ok := strings.CutSuffix(name, "Sec"); ok && !strings.HasSuffix(name, "USec") {
			seconds, ok := inFloat(value)
			if !ok || seconds < 0 {
				return nil, fmt.Errorf("annotations: %s: %q is no number of seconds", key, text)
			}
			name, value = base+"USec", uint64(seconds*1e6)
		}
		l.add(name, value)
	}
	return l, nil
}

func inFloat(v any) (float64, bool) {
	switch v := v.(type) {
	case int32:
		return float64(v), true
	case uint32:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}

// parseValue reads the text forms that properties of units have: booleans,
// numbers with or without their type, strings, and lists of strings.
func parseValue(text string) (any, error) {
	text = strings.TrimSpace(text)
	switch {
	case text == "true" || text == "false":
		return text == "true", nil
	case strings.HasPrefix(text, "["):
		return parseList(text)
	case strings.HasPrefix(text, "@as"):
		return parseList(strings.TrimSpace(text[len("@as"):]))
	case strings.HasPrefix(text, "'") || strings.HasPrefix(text, `"`):
		s, rest, err := parseString(text)
		if err == nil && rest != "" {
			err = fmt.Errorf("%q follows", rest)
		}
		return s, err
	}
	kind, digits, typed := strings.Cut(text, " ")
	if !typed {
		kind, digits = "int32", text
		if strings.ContainsAny(text, ".e") {
			kind = "double"
		}
	}
	digits = strings.TrimSpace(digits)
	switch kind {
	case "int32", "int64":
		n, err := strconv.ParseInt(digits, 0, map[string]int{"int32": 32, "int64": 64}[kind])
		if kind == "int32" {
			return int32(n), err
		}
		return n, err
	case "uint32", "uint64":
		n, err := strconv.ParseUint(digits, 0, map[string]int{"uint32": 32, "uint64": 64}[kind])
		if kind == "uint32" {
			return uint32(n), err
		}
		return n, err
	case "double":
		return strconv.ParseFloat(digits, 64)
	}
	return nil, fmt.Errorf("type %q is not understood", kind)
}

func parseList(text string) ([]string, error) {
	rest, ok := strings.CutPrefix(text, "[")
	if !ok || !strings.HasSuffix(rest, "]") {
		return nil, errors.New("a list ends with ]")
	}
	rest = strings.TrimSpace(strings.TrimSuffix(rest, "]"))
	list := []string{}
	for rest != "" {
		s, after, err := parseString(rest)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
		if rest = strings.TrimSpace(after); rest != "" {
			if rest, ok = strings.CutPrefix(rest, ","); !ok {
				return nil, fmt.Errorf("%q follows an element", rest)
			}
			rest = strings.TrimSpace(rest)
		}
	}
	return list, nil
}

// parseString reads a string in single or double quotes, and what follows it.
func parseString(text string) (s, rest string, err error) {
	if text == "" || text[0] != '\'' && text[0] != '"' {
		return "", "", errors.New("a string begins with a quote")
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == text[0]:
			return b.String(), text[i+1:], nil
		case text[i] == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(text[i])
		}
	}
	return "", "", errors.New("a string ends with its quote")
}
