package engine

import (
	"net/http/httptest"
	"net/url"
	"testing"
)

func TestFiltersAreReadInBothForms(t *testing.T) {
	for _, c := range []struct {
		name, raw string
		ok        bool
	}{
		{"today's form", `{"label":{"a=b":true,"c":true}}`, true},
		{"that of old clients", `{"label":["a=b","c"]}`, true},
		{"none", ``, true},
		{"an unknown key", `{"lable":{"a":true}}`, false},
		{"what is no JSON", `{`, false},
		{"JSON of another kind", `["label"]`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/x?filters="+url.QueryEscape(c.raw), nil)
			f, err := parseFilters(r, "label", "name")
			if (err == nil) != c.ok {
				t.Fatalf("got %v, %v", f, err)
			}
			if err != nil && statusOf(err) != 400 {
				t.Errorf("status %d, want 400", statusOf(err))
			}
			if c.ok && c.raw != "" && !f.labels("label", map[string]string{"a": "b", "c": "d"}) {
				t.Errorf("%v does not pass its labels", f)
			}
		})
	}
}

func TestAFilterPasses(t *testing.T) {
	f := filters{
		"label": {"a=b": true, "c": true}, "label!": {"x": true},
		"id": {"abc": true}, "name": {"^web": true, "db": true}, "driver": {"local": true}, "bad": {"(": true},
	}
	for _, c := range []struct {
		name string
		got  bool
		want bool
	}{
		{"all labels are there", f.labels("label", map[string]string{"a": "b", "c": ""}), true},
		{"a label has another value", f.labels("label", map[string]string{"a": "z", "c": ""}), false},
		{"a label is missing", f.labels("label", map[string]string{"a": "b"}), false},
		{"no label that must not be", f.notLabels("label!", map[string]string{"a": "b"}), true},
		{"a label that must not be", f.notLabels("label!", map[string]string{"x": "1"}), false},
		{"the beginning of an ID", f.prefix("id", "abcdef"), true},
		{"the middle of an ID", f.prefix("id", "xabc"), false},
		{"a pattern at the beginning", f.pattern("name", "web1"), true},
		{"a pattern anywhere", f.pattern("name", "mydb1"), true},
		{"no pattern", f.pattern("name", "other"), false},
		{"a pattern that is none matches itself", f.pattern("bad", "("), true},
		{"a pattern that is none matches nothing else", f.pattern("bad", "x"), false},
		{"exact", f.exact("driver", "local"), true},
		{"not exact", f.exact("driver", "localx"), false},
		{"a key that was not asked for", f.exact("none", "x"), true},
	} {
		if c.got != c.want {
			t.Errorf("%s: got %v", c.name, c.got)
		}
	}
}
