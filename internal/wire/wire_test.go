package wire

import "testing"

type sample struct {
	name string
	nums []uint64
	next *sample
}

func (m *sample) Fields(c *Codec) {
	c.String(1, &m.name)
	c.Uints(2, &m.nums)
	Optional(c, 3, &m.next)
}

func TestHostileBytesAreRefused(t *testing.T) {
	for _, row := range []struct {
		name  string
		bytes string
	}{
		{"a length beyond the end", "\x0a\x05ab"},
		{"a length of 2^63", "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f"},
		{"a number without an end", "\x10\xff"},
		{"a tag without an end", "\xff"},
		{"a group, which proto3 does not have", "\x0b"},
		{"a string where a number is wanted", "\x08\x01"},
		{"an inner message that is cut", "\x1a\x02\x0a\x05"},
		{"a packed number that is cut", "\x12\x01\xff"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if err := Unmarshal([]byte(row.bytes), &sample{}); err == nil {
				t.Error("it is taken")
			}
		})
	}
}

func TestUnknownFieldsArePassedOver(t *testing.T) {
	var m sample
	b := "\x78\x05" + "\x7a\x01x" + "\x79abcdefgh" + "\x7dabcd" + "\x0a\x02ok"
	if err := Unmarshal([]byte(b), &m); err != nil || m.name != "ok" {
		t.Errorf("got %q, %v", m.name, err)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(Marshal(&sample{"a", []uint64{1, 1 << 40}, &sample{name: "b"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var m sample
		if Unmarshal(b, &m) != nil {
			return
		}
		var again sample
		if err := Unmarshal(Marshal(&m), &again); err != nil {
			t.Error(err)
		}
	})
}

type required struct{ n int32 }

func (m *required) Fields(c *Codec) { Required(c, 1, &m.n) }

func TestARequiredNumberIsThereWhereItIsZero(t *testing.T) {
	if got := string(Marshal(&required{})); got != "\x08\x00" {
		t.Errorf("encoded as %q", got)
	}
	var m required
	if err := Unmarshal([]byte("\x08\x07"), &m); err != nil || m.n != 7 {
		t.Errorf("decoded as %d, %v", m.n, err)
	}
}
