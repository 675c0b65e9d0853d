// Package specjson decodes JSON into structs, as encoding/json does, without
// the tables that encoding/json builds of every type that a type leads to and
// keeps as long as the process lives. Of a runtime specification these are two
// thirds of what a shim has on its heap, and a good part of its first millisecond.
//
// It knows the kinds that a specification is made of. What it does not know, and
// what is wrong, it leaves to encoding/json, which also has the words for it.
package specjson

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
)

// Unmarshal decodes data into v, a pointer to a zero struct.
func Unmarshal(data []byte, v any) error {
	if json.Valid(data) {
		d := decoder{data: data}
		if d.value(reflect.ValueOf(v).Elem()) {
			return nil
		}
		reflect.ValueOf(v).Elem().SetZero()
	}
	return json.Unmarshal(data, v)
}

// decoder reads JSON that is known to be valid.
type decoder struct {
	data []byte
	at   int
}

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

// value decodes the next value into v; false says that it cannot.
func (d *decoder) value(v reflect.Value) bool {
	if mayHaveMethods(v.Type()) && reflect.PointerTo(v.Type()).Implements(unmarshaler) {
		return v.Addr().Interface().(json.Unmarshaler).UnmarshalJSON(d.skip()) == nil
	}
	if d.peek() == 'n' {
		d.skip()
		if k := v.Kind(); k == reflect.Pointer || k == reflect.Map || k == reflect.Slice {
			v.SetZero()
		}
		return true
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		return d.value(v.Elem())
	case reflect.Struct:
		return d.object(func(key string) bool { return d.field(v, key) })
	case reflect.Map:
		return d.mapping(v)
	case reflect.Slice:
		return d.array(v)
	}
	return d.scalar(v)
}

// mayHaveMethods spares types without a name, and those of the language, the
// pointer type that package reflect would make of each, and keep. A struct without
// a name has the methods of what it embeds.
func mayHaveMethods(t reflect.Type) bool { return t.PkgPath() != "" || t.Kind() == reflect.Struct }

// field decodes the next value into the field of v that key names.
func (d *decoder) field(v reflect.Value, key string) bool {
	if f := named(v, func(name string) bool { return name == key }); f.IsValid() {
		return d.value(f)
	}
	if f := named(v, func(name string) bool { return strings.EqualFold(name, key) }); f.IsValid() {
		return d.value(f)
	}
	d.skip()
	return true
}

// named finds a field by its name in JSON: one of v's own, and only then one of
// those that v embeds.
func named(v reflect.Value, is func(name string) bool) reflect.Value {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" || !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if is(name) {
			return v.Field(i)
		}
	}
	for i := range t.NumField() {
		if f := t.Field(i); f.Anonymous && f.Type.Kind() == reflect.Struct {
			if found := named(v.Field(i), is); found.IsValid() {
				return found
			}
		}
	}
	return reflect.Value{}
}

// object calls member for each key; member takes the value that follows.
func (d *decoder) object(member func(key string) bool) bool {
	if d.peek() != '{' {
		return false
	}
	d.at++
	for d.peek() != '}' {
		if d.data[d.at] == ',' {
			d.at++
			d.peek()
		}
		key, ok := text(d.skip())
		if !ok {
			return false
		}
		d.peek()
		d.at++ // the colon
		if !member(key) {
			return false
		}
	}
	d.at++
	return true
}

func (d *decoder) mapping(v reflect.Value) bool {
	if v.Type().Key().Kind() != reflect.String {
		return false
	}
	if v.IsNil() {
		v.Set(reflect.MakeMap(v.Type()))
	}
	return d.object(func(key string) bool {
		e := reflect.New(v.Type().Elem()).Elem()
		if !d.value(e) {
			return false
		}
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), e)
		return true
	})
}

func (d *decoder) array(v reflect.Value) bool {
	if d.peek() != '[' || v.Type().Elem().Kind() == reflect.Uint8 {
		return false
	}
	if !v.IsNil() { // a key that comes twice: encoding/json has its own way with it
		return false
	}
	d.at++
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for d.peek() != ']' {
		if d.data[d.at] == ',' {
			d.at++
		}
		n := v.Len()
		v.Grow(1)
		v.SetLen(n + 1)
		if !d.value(v.Index(n)) {
			return false
		}
	}
	d.at++
	return true
}

func (d *decoder) scalar(v reflect.Value) bool {
	token := d.skip()
	var err error
	switch v.Kind() {
	case reflect.String:
		s, ok := text(token)
		v.SetString(s)
		return ok
	case reflect.Bool:
		v.SetBool(token[0] == 't')
		return token[0] == 't' || token[0] == 'f'
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		var n int64
		n, err = strconv.ParseInt(string(token), 10, v.Type().Bits())
		v.SetInt(n)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		var n uint64
		n, err = strconv.ParseUint(string(token), 10, v.Type().Bits())
		v.SetUint(n)
	default:
		return false
	}
	return err == nil
}

// text is the string that a token stands for.
func text(token []byte) (s string, ok bool) {
	if token[0] != '"' {
		return "", false
	}
	for _, c := range token {
		if c == '\\' || c >= 0x80 { // escapes, and bytes that may be no UTF-8
			return s, json.Unmarshal(token, &s) == nil
		}
	}
	return string(token[1 : len(token)-1]), true
}

// peek is the first byte of the next token.
func (d *decoder) peek() byte {
	for strings.IndexByte(" \t\r\n", d.data[d.at]) >= 0 {
		d.at++
	}
	return d.data[d.at]
}

// skip passes over the next value and returns it.
func (d *decoder) skip() []byte {
	d.peek()
	begin, depth := d.at, 0
	for ; d.at < len(d.data); d.at++ {
		switch c := d.data[d.at]; c {
		case '"':
			for d.at++; d.data[d.at] != '"'; d.at++ {
				if d.data[d.at] == '\\' {
					d.at++
				}
			}
			if depth == 0 {
				d.at++
				return d.data[begin:d.at]
			}
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // the end of what a number or a word is in
				return d.data[begin:d.at]
			}
			if depth--; depth == 0 {
				d.at++
				return d.data[begin:d.at]
			}
		case ',', ' ', '\t', '\r', '\n':
			if depth == 0 {
				return d.data[begin:d.at]
			}
		}
	}
	return d.data[begin:]
}
