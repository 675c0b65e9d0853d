// Package wire is the protobuf wire format in as few lines as a small program needs.
//
// A message lists its fields once, in a method Fields, and that one list serves
// both directions: a Codec that encodes appends every field that is not zero, a
// Codec that decodes hands the field at hand to the one line whose number is its
// own. Unknown fields are skipped (protobuf.dev, "Encoding").
//
// The generated code of the same messages brings gRPC and reflection with it,
// which would be most of a small program's memory and of its start-up time.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Message is anything that lists its fields.
type Message interface {
	// Fields calls one method of c for each field.
	Fields(c *Codec)
}

// errTruncated says that a field is longer than the message that holds it.
var errTruncated = errors.New("message is truncated")

// Wire types (protobuf.dev, "Message Structure").
const (
	varint = 0
	fixed8 = 1 // 64 bits
	length = 2
	fixed4 = 5 // 32 bits
)

// Codec carries one message in one direction.
type Codec struct {
	out []byte // encoding: what was written so far

	decode bool
	num    int    // decoding: the number of the field at hand
	typ    int    // its wire type
	val    uint64 // its value, where it is a number
	bytes  []byte // its value, where it has a length
	err    error
}

// Marshal encodes m.
func Marshal(m Message) []byte { return Append(nil, m) }

// Append encodes m behind b.
func Append(b []byte, m Message) []byte {
	c := Codec{out: b}
	m.Fields(&c)
	return c.out
}

// Unmarshal decodes b into m, which starts as its zero value. Strings and bytes
// are copies.
func Unmarshal(b []byte, m Message) error {
	c := Codec{decode: true}
	for len(b) > 0 {
		var err error
		if b, err = c.next(b); err != nil {
			return fmt.Errorf("decode field %d: %w", c.num, err)
		}
		m.Fields(&c)
		if c.err != nil {
			return fmt.Errorf("decode field %d: %w", c.num, c.err)
		}
	}
	return nil
}

// next reads one field off b into c and returns the rest.
func (c *Codec) next(b []byte) ([]byte, error) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return nil, errTruncated
	}
	b = b[n:]
	c.num, c.typ, c.val, c.bytes = int(tag>>3), int(tag&7), 0, nil
	switch c.typ {
	case varint:
		if c.val, n = binary.Uvarint(b); n <= 0 {
			return nil, errTruncated
		}
		return b[n:], nil
	case length:
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return nil, errTruncated
		}
		c.bytes = b[n : n+int(size)]
		return b[n+int(size):], nil
	case fixed8:
		if len(b) < 8 {
			return nil, errTruncated
		}
		c.val = binary.LittleEndian.Uint64(b)
		return b[8:], nil
	case fixed4:
		if len(b) < 4 {
			return nil, errTruncated
		}
		c.val = uint64(binary.LittleEndian.Uint32(b))
		return b[4:], nil
	}
	return nil, fmt.Errorf("wire type %d", c.typ)
}

// mine says whether the field at hand is number num, and checks its wire type.
func (c *Codec) mine(num, typ int) bool {
	if c.num != num {
		return false
	}
	if c.typ != typ {
		c.err = fmt.Errorf("wire type %d, want %d", c.typ, typ)
		return false
	}
	return true
}

func (c *Codec) tag(num, typ int) {
	c.out = binary.AppendUvarint(c.out, uint64(num)<<3|uint64(typ))
}

func (c *Codec) putBytes(num int, b string) {
	c.tag(num, length)
	c.out = binary.AppendUvarint(c.out, uint64(len(b)))
	c.out = append(c.out, b...)
}

// String is a string field.
func (c *Codec) String(num int, p *string) {
	if c.decode {
		if c.mine(num, length) {
			*p = string(c.bytes)
		}
	} else if *p != "" {
		c.putBytes(num, *p)
	}
}

// Bytes is a bytes field.
func (c *Codec) Bytes(num int, p *[]byte) {
	if c.decode {
		if c.mine(num, length) {
			*p = slices.Clone(c.bytes)
		}
	} else if len(*p) > 0 {
		c.putBytes(num, string(*p))
	}
}

// Strings is a repeated string field.
func (c *Codec) Strings(num int, p *[]string) {
	if c.decode {
		if c.mine(num, length) {
			*p = append(*p, string(c.bytes))
		}
		return
	}
	for _, s := range *p {
		c.putBytes(num, s)
	}
}

// Uint is an unsigned, signed (as two's complement) or enumerated number.
func Uint[T ~uint32 | ~uint64 | ~int32 | ~int64](c *Codec, num int, p *T) {
	if c.decode {
		if c.mine(num, varint) {
			*p = T(c.val)
		}
	} else if *p != 0 {
		c.tag(num, varint)
		c.out = binary.AppendUvarint(c.out, uint64(int64(*p)))
	}
}

// Required is a number of proto2 that must be there, zero as well.
func Required[T ~uint32 | ~uint64 | ~int32 | ~int64](c *Codec, num int, p *T) {
	if !c.decode && *p == 0 {
		c.tag(num, varint)
		c.out = append(c.out, 0)
		return
	}
	Uint(c, num, p)
}

// Uints is a repeated number: packed when encoded, either form when decoded.
func (c *Codec) Uints(num int, p *[]uint64) {
	switch {
	case !c.decode:
		var packed []byte
		for _, v := range *p {
			packed = binary.AppendUvarint(packed, v)
		}
		c.Bytes(num, &packed)
	case c.num == num && c.typ == varint:
		*p = append(*p, c.val)
	case c.mine(num, length):
		for b := c.bytes; len(b) > 0; {
			v, n := binary.Uvarint(b)
			if n <= 0 {
				c.err = errTruncated
				return
			}
			*p, b = append(*p, v), b[n:]
		}
	}
}

// Bool is a bool field.
func (c *Codec) Bool(num int, p *bool) {
	if c.decode {
		if c.mine(num, varint) {
			*p = c.val != 0
		}
	} else if *p {
		c.tag(num, varint)
		c.out = append(c.out, 1)
	}
}

// Map is a map<string, string> field, encoded in the order of its keys.
func (c *Codec) Map(num int, p *map[string]string) {
	if c.decode {
		if !c.mine(num, length) {
			return
		}
		var e entry
		if c.err = Unmarshal(c.bytes, &e); c.err != nil {
			return
		}
		if *p == nil {
			*p = map[string]string{}
		}
		(*p)[e.key] = e.value
		return
	}
	keys := make([]string, 0, len(*p))
	for k := range *p {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, strings.Compare)
	for _, k := range keys {
		c.putMessage(num, &entry{k, (*p)[k]})
	}
}

// entry is one pair of a map (protobuf.dev, "Maps").
type entry struct{ key, value string }

func (e *entry) Fields(c *Codec) {
	c.String(1, &e.key)
	c.String(2, &e.value)
}

// pointer is the pointer to a T that is a Message.
type pointer[T any] interface {
	*T
	Message
}

// Optional is a message field; nil is absent.
func Optional[T any, P pointer[T]](c *Codec, num int, p **T) {
	if c.decode {
		if c.mine(num, length) {
			if *p == nil {
				*p = new(T)
			}
			c.err = Unmarshal(c.bytes, P(*p))
		}
	} else if *p != nil {
		c.putMessage(num, P(*p))
	}
}

// Repeated is a repeated message field.
func Repeated[T any, P pointer[T]](c *Codec, num int, p *[]T) {
	if c.decode {
		if c.mine(num, length) {
			var v T
			c.err = Unmarshal(c.bytes, P(&v))
			*p = append(*p, v)
		}
		return
	}
	for i := range *p {
		c.putMessage(num, P(&(*p)[i]))
	}
}

// Double is a double field.
func (c *Codec) Double(num int, p *float64) {
	if c.decode {
		if c.mine(num, fixed8) {
			*p = math.Float64frombits(c.val)
		}
	} else if *p != 0 {
		c.tag(num, fixed8)
		c.out = binary.LittleEndian.AppendUint64(c.out, math.Float64bits(*p))
	}
}

// Put encodes m as field num, also where it is empty; a Codec that decodes has
// no use for it.
func (c *Codec) Put(num int, m Message) {
	if !c.decode {
		c.putMessage(num, m)
	}
}

// putMessage encodes m in place and then makes room for its length before it.
func (c *Codec) putMessage(num int, m Message) {
	c.tag(num, length)
	start := len(c.out)
	m.Fields(c)
	var prefix [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(prefix[:], uint64(len(c.out)-start))
	c.out = slices.Insert(c.out, start, prefix[:n]...)
}
