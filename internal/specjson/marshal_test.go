package specjson

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

type inner struct {
	Name string            `json:"name"`
	Made time.Time         `json:"made"`
	Tags map[string]string `json:"tags,omitempty"`
}

type nested struct {
	inner
	A     int          `json:"a"`
	Zero  inner        `json:"zero,omitzero"`
	Hooks *specs.Hooks `json:"hooks,omitempty"`
	Raw   []byte       `json:"raw,omitempty"`
	Any   any          `json:"any,omitempty"`
	Float float64      `json:"float,omitempty"`
	Plain []string
	Not   string `json:"-"`
	Text  string `json:"text,string,omitempty"`
	own   int
}

type shadowing struct {
	inner
	Name string `json:"name"`
}

// Whatever is encoded, it is as encoding/json has it: byte for byte.
func TestMarshalIsThatOfEncodingJSON(t *testing.T) {
	now := time.Now()
	yes, n := true, int64(-5)
	for _, v := range []any{
		nil, 1, "x",
		[]string{},
		[]string(nil),
		map[string]int{"b": 1, "a": 2, "": 3},
		map[int]int{1: 2},
		"<&>\u2028\"\\\n\x00é\xff",
		struct{}{},
		inner{},
		&inner{Name: "a\tb", Made: now, Tags: map[string]string{"k<": "v"}},
		nested{inner: inner{Name: "x", Made: now}, A: -7},
		&nested{Raw: []byte("raw"), Any: 1, Float: 1.5, Plain: []string{"p"}, Not: "n", own: 1},
		nested{Text: "t"},
		shadowing{inner{Name: "in"}, "out"},
		json.RawMessage(`{"a": 1}`),
		[]json.RawMessage{[]byte("1")},
		specs.Spec{
			Version: "1", Process: &specs.Process{Args: []string{"a\"b"}, OOMScoreAdj: new(int)},
			Hooks: &specs.Hooks{Poststart: []specs.Hook{{Path: "/x", Timeout: new(int)}}},
			Linux: &specs.Linux{Resources: &specs.LinuxResources{
				Memory: &specs.LinuxMemory{Limit: &n, DisableOOMKiller: &yes}, Unified: map[string]string{"x": "y"},
			}},
		},
	} {
		got, err := Marshal(v)
		want, werr := json.Marshal(v)
		if string(got) != string(want) || (err == nil) != (werr == nil) {
			t.Errorf("%v %v is\n%s, %v, want\n%s, %v", reflect.TypeOf(v), v, got, err, want, werr)
		}
	}
}
