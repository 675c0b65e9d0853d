package filter

import (
	"testing"

	"github.com/containerd/errdefs"
)

func TestFiltersChooseAsContainerdDoes(t *testing.T) {
	labels := map[string]string{"app": "web", "io.x/kind": "a b"}
	fields := func(path []string) (string, bool) {
		switch path[0] {
		case "name":
			return "docker.io/library/busybox:1", true
		case "topic":
			return "/tasks/exit", true
		case "labels":
			return Labels(labels, path[1:])
		}
		return "", false
	}
	for _, tt := range []struct {
		name    string
		filters []string
		want    bool
	}{
		{"none holds for everything", nil, true},
		{"an empty one holds for everything", []string{""}, true},
		{"a bare value goes up to the comma", []string{"name==docker.io/library/busybox:1,labels.app==web"}, true},
		{"all selectors must hold", []string{"name==docker.io/library/busybox:1,labels.app==db"}, false},
		{"one of several filters must hold", []string{"labels.app==db", "labels.app==web"}, true},
		{"a quoted label and value", []string{`labels."io.x/kind"=="a b"`}, true},
		{"a field without operator must be there", []string{`labels.app`}, true},
		{"a field without operator that is not there", []string{`labels.gone`}, false},
		{"equal needs the field", []string{`gone==""`}, false},
		{"not equal holds for a missing field", []string{"gone!=x"}, true},
		{"a pattern between bars", []string{"topic~=|^/tasks/|"}, true},
		{"a pattern between slashes", []string{`topic~=/^\/tasks\/start/`}, false},
		{"a bare pattern", []string{`name~=busybox:[0-9]$`}, true},
		{"white space between the parts", []string{` labels.app == web , topic ~= "exit$" `}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse(tt.filters...)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Match(fields); got != tt.want {
				t.Errorf("%q: got %v, want %v", tt.filters, got, tt.want)
			}
		})
	}
}

func TestBadFiltersAreInvalidArguments(t *testing.T) {
	for _, s := range []string{"==x", "name==", `name=="x`, "name~=/x", "name~=(", "name=x", "name==x y", "a..b"} {
		if _, err := Parse(s); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: got %v, want an invalid argument", s, err)
		}
	}
}
