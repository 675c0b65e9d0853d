package systemd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The D-Bus specification, "Message Protocol": what a message is.
const (
	methodCall   = 1
	methodReturn = 2
	failure      = 3
	signal       = 4
)

// The codes of header fields.
const (
	fieldPath = 1 + iota
	fieldInterface
	fieldMember
	fieldErrorName
	fieldReplySerial
	fieldDestination
	fieldSender
	fieldSignature
)

const (
	fixedHeader = 16
	protocol    = 1
	// maxMessage is the greatest message that the specification allows.
	maxMessage = 128 << 20
)

type (
	objectPath string
	signature  string
	// Pair is a struct of two strings, as DeviceAllow is a list of.
	Pair [2]string
	// Property is one property of a unit. Its value is a bool, an int32, uint32,
	// int64, uint64, float64, string, []byte, []uint32, []string or []Pair.
	Property struct {
		Name  string
		Value any
	}
)

// signatureOf is the type of v in D-Bus' words.
func signatureOf(v any) (string, error) {
	switch v.(type) {
	case bool:
		return "b", nil
	case int32:
		return "i", nil
	case uint32:
		return "u", nil
	case int64:
		return "x", nil
	case uint64:
		return "t", nil
	case float64:
		return "d", nil
	case string:
		return "s", nil
	case objectPath:
		return "o", nil
	case signature:
		return "g", nil
	case []byte:
		return "ay", nil
	case []uint32:
		return "au", nil
	case []string:
		return "as", nil
	case []Pair:
		return "a(ss)", nil
	case []Property:
		return "a(sv)", nil
	case []unit:
		return "a(sa(sv))", nil
	}
	return "", fmt.Errorf("no D-Bus type for %T", v)
}

// unit is a unit with its properties: StartTransientUnit takes a list of further
// ones, which is empty here.
type unit struct {
	name  string
	props []Property
}

// encoder writes values in little-endian form, each aligned to its size from the
// start of the message.
type encoder struct {
	b   []byte
	err error
}

func (e *encoder) align(n int) {
	for len(e.b)%n != 0 {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) u32(v uint32) {
	e.align(4)
	e.b = binary.LittleEndian.AppendUint32(e.b, v)
}

func (e *encoder) u64(v uint64) {
	e.align(8)
	e.b = binary.LittleEndian.AppendUint64(e.b, v)
}

func (e *encoder) str(s string) {
	e.u32(uint32(len(s)))
	e.b = append(append(e.b, s...), 0)
}

func (e *encoder) sig(s string) { e.b = append(append(append(e.b, byte(len(s))), s...), 0) }

// array writes n elements, aligned to align, that each writes.
func (e *encoder) array(n, align int, each func(i int)) {
	e.u32(0)
	at := len(e.b)
	e.align(align)
	start := len(e.b) // the padding before the first element does not count
	for i := range n {
		each(i)
	}
	binary.LittleEndian.PutUint32(e.b[at-4:], uint32(len(e.b)-start))
}

func (e *encoder) variant(v any) {
	s, err := signatureOf(v)
	if err != nil && e.err == nil {
		e.err = err
	}
	e.sig(s)
	e.value(v)
}

func (e *encoder) value(v any) {
	switch v := v.(type) {
	case bool:
		e.u32(map[bool]uint32{true: 1}[v])
	case int32:
		e.u32(uint32(v))
	case uint32:
		e.u32(v)
	case int64:
		e.u64(uint64(v))
	case uint64:
		e.u64(v)
	case float64:
		e.u64(math.Float64bits(v))
	case string:
		e.str(v)
	case objectPath:
		e.str(string(v))
	case signature:
		e.sig(string(v))
	case []byte:
		e.array(len(v), 1, func(i int) { e.b = append(e.b, v[i]) })
	case []uint32:
		e.array(len(v), 4, func(i int) { e.u32(v[i]) })
	case []string:
		e.array(len(v), 4, func(i int) { e.str(v[i]) })
	case []Pair:
		e.array(len(v), 8, func(i int) { e.align(8); e.str(v[i][0]); e.str(v[i][1]) })
	case []Property:
		e.array(len(v), 8, func(i int) { e.align(8); e.str(v[i].Name); e.variant(v[i].Value) })
	case []unit:
		e.array(len(v), 8, func(i int) { e.align(8); e.str(v[i].name); e.value(v[i].props) })
	}
}

// call is a method call on the wire.
func call(serial uint32, dest string, path objectPath, iface, member string, args ...any) ([]byte, error) {
	var body encoder
	sig := ""
	for _, a := range args {
		s, err := signatureOf(a)
		if err != nil {
			return nil, err
		}
		sig += s
		body.value(a)
	}
	if body.err != nil {
		return nil, body.err
	}
	fields := []struct {
		code  byte
		value any
	}{{fieldPath, path}, {fieldInterface, iface}, {fieldMember, member}, {fieldDestination, dest}}
	if sig != "" {
		fields = append(fields, struct {
			code  byte
			value any
		}{fieldSignature, signature(sig)})
	}
	e := encoder{b: []byte{'l', methodCall, 0, protocol}}
	e.u32(uint32(len(body.b)))
	e.u32(serial)
	e.array(len(fields), 8, func(i int) { e.align(8); e.b = append(e.b, fields[i].code); e.variant(fields[i].value) })
	e.align(8)
	return append(e.b, body.b...), e.err
}

// message is what came in. Only strings and numbers are read out of a body.
type message struct {
	kind   byte
	reply  uint32 // serial of the call that it answers
	member string
	fault  string // name of an error
	sig    string
	body   decoder
}

// sizes are those of the two variable parts, from the fixed part of a message.
func sizes(fixed []byte) (fields, body int, err error) {
	if fixed[0] != 'l' || fixed[3] != protocol {
		return 0, 0, fmt.Errorf("read a D-Bus message: byte order %q, protocol %d", fixed[0], fixed[3])
	}
	fields = (int(binary.LittleEndian.Uint32(fixed[12:])) + 7) &^ 7
	body = int(binary.LittleEndian.Uint32(fixed[4:]))
	if fields+body > maxMessage {
		return 0, 0, fmt.Errorf("read a D-Bus message: %d bytes are too many", fields+body)
	}
	return fields, body, nil
}

var errShort = errors.New("read a D-Bus message: it is short")

// parse reads a whole message.
func parse(b []byte) (*message, error) {
	fields, _, err := sizes(b)
	if err == nil && fixedHeader+fields > len(b) {
		err = errShort
	}
	if err != nil {
		return nil, err
	}
	m := &message{kind: b[1], body: decoder{b: b[fixedHeader+fields:]}}
	// The list of fields begins with its length, at 12, and is aligned from there.
	d := decoder{b: b[:fixedHeader+int(binary.LittleEndian.Uint32(b[12:]))], at: fixedHeader}
	for d.at < len(d.b) {
		d.align(8)
		code := d.byte()
		switch sig := d.sig(); sig {
		case "u":
			if v := d.u32(); code == fieldReplySerial {
				m.reply = v
			}
		case "s", "o":
			switch v := d.str(); code {
			case fieldMember:
				m.member = v
			case fieldErrorName:
				m.fault = v
			}
		case "g":
			m.sig = d.sig()
		default:
			return nil, fmt.Errorf("read a D-Bus message: header field %d has type %q", code, sig)
		}
	}
	return m, d.err
}

// decoder reads values. After an error it reads nothing but zeros.
type decoder struct {
	b   []byte
	at  int
	err error
}

func (d *decoder) align(n int) { d.at = (d.at + n - 1) / n * n }

func (d *decoder) take(n int) []byte {
	if d.err == nil && (n < 0 || d.at+n > len(d.b)) {
		d.err = errShort
	}
	if d.err != nil {
		d.at = len(d.b)
		return nil
	}
	d.at += n
	return d.b[d.at-n : d.at]
}

func (d *decoder) byte() byte {
	if b := d.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (d *decoder) u32() uint32 {
	d.align(4)
	if b := d.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) str() string {
	s := string(d.take(int(d.u32())))
	d.take(1)
	return s
}

func (d *decoder) sig() string {
	s := string(d.take(int(d.byte())))
	d.take(1)
	return s
}
