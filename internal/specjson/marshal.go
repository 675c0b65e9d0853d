package specjson

import (
	"bytes"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// Marshal is json.Marshal of v, without its tables.
func Marshal(v any) ([]byte, error) {
	e := encoder{}
	if e.value(reflect.ValueOf(v)) {
		return e.out, nil
	}
	return json.Marshal(v)
}

type encoder struct{ out []byte }

var (
	marshaler     = reflect.TypeFor[json.Marshaler]()
	textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()
)

// value encodes v; false says that it cannot.
func (e *encoder) value(v reflect.Value) bool {
	if !v.IsValid() {
		return false
	}
	if v.Kind() != reflect.Pointer && v.Type().Implements(marshaler) {
		b, err := v.Interface().(json.Marshaler).MarshalJSON()
		if err != nil || !plain(b) || bytes.IndexByte(b, ' ') >= 0 {
			return false
		}
		e.out = append(e.out, b...)
		return true
	}
	if mayHaveMethods(v.Type()) {
		if t := reflect.PointerTo(v.Type()); t.Implements(marshaler) || t.Implements(textMarshaler) {
			return false // what encoding/json does depends on whether it can be addressed
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return e.raw("null")
		}
		return e.value(v.Elem())
	case reflect.Struct:
		e.raw("{")
		return e.fields(v) && e.end('}')
	case reflect.Map:
		return e.mapping(v)
	case reflect.Slice:
		return e.array(v)
	case reflect.String:
		return e.text(v.String())
	case reflect.Bool:
		return e.raw(strconv.FormatBool(v.Bool()))
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		e.out = strconv.AppendInt(e.out, v.Int(), 10)
		return true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		e.out = strconv.AppendUint(e.out, v.Uint(), 10)
		return true
	}
	return false
}

func (e *encoder) raw(s string) bool {
	e.out = append(e.out, s...)
	return true
}

// end puts c in the place of the last comma, if there is one.
func (e *encoder) end(c byte) bool {
	if last := len(e.out) - 1; e.out[last] == ',' {
		e.out[last] = c
	} else {
		e.out = append(e.out, c)
	}
	return true
}

// fields encodes the fields of a struct, and of those that it embeds, each with
// a comma after it.
func (e *encoder) fields(v reflect.Value) bool {
	t := v.Type()
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			if f.Type.Kind() != reflect.Struct || shadows(t, f.Type) || !e.fields(v.Field(i)) {
				return false
			}
			continue
		}
		if !f.IsExported() || name == "-" && options == "" {
			continue
		}
		omit := false
		for o := range strings.SplitSeq(options, ",") {
			switch o {
			case "":
			case "omitempty":
				omit = omit || empty(v.Field(i))
			case "omitzero":
				if _, own := f.Type.MethodByName("IsZero"); own {
					return false
				}
				omit = omit || v.Field(i).IsZero()
			default:
				return false
			}
		}
		if omit {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if !e.text(name) || !e.raw(":") || !e.value(v.Field(i)) {
			return false
		}
		e.raw(",")
	}
	return true
}

// shadows says whether outer has a field that hides one of embedded.
func shadows(outer, embedded reflect.Type) bool {
	for i := range embedded.NumField() {
		if f, ok := outer.FieldByName(embedded.Field(i).Name); !ok || len(f.Index) != 2 {
			return true
		}
	}
	return false
}

// empty is what omitempty leaves out.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice:
		return v.Len() == 0
	case reflect.Struct:
		return false
	}
	return v.IsZero()
}

func (e *encoder) mapping(v reflect.Value) bool {
	if v.IsNil() {
		return e.raw("null")
	}
	if v.Type().Key().Kind() != reflect.String || v.Type().Key().Implements(textMarshaler) {
		return false
	}
	keys := v.MapKeys()
	slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
	e.raw("{")
	for _, k := range keys {
		if !e.text(k.String()) || !e.raw(":") || !e.value(v.MapIndex(k)) {
			return false
		}
		e.raw(",")
	}
	return e.end('}')
}

func (e *encoder) array(v reflect.Value) bool {
	if v.IsNil() {
		return e.raw("null")
	}
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return false
	}
	e.raw("[")
	for i := range v.Len() {
		if !e.value(v.Index(i)) {
			return false
		}
		e.raw(",")
	}
	return e.end(']')
}

// text encodes a string. For what needs an escape encoding/json has the words.
func (e *encoder) text(s string) bool {
	if plain([]byte(s)) && !strings.ContainsAny(s, `"\`) {
		e.out = append(append(append(e.out, '"'), s...), '"')
		return true
	}
	b, err := json.Marshal(s)
	e.out = append(e.out, b...)
	return err == nil
}

// plain says whether encoding/json leaves b as it is, but for quotes and
// backslashes: printable ASCII without what means something in HTML.
func plain(b []byte) bool {
	for _, c := range b {
		if c < ' ' || c > '~' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}
