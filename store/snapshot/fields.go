package snapshot

import "github.com/gantryd/gantry/internal/filter"

// String names k as containerd's tools and filters do.
func (k Kind) String() string {
	switch k {
	case View:
		return "View"
	case Active:
		return "Active"
	case Committed:
		return "Committed"
	}
	return "Unknown"
}

// Field gives filters name, parent, kind and labels of i.
func (i Info) Field(path []string) (string, bool) {
	switch path[0] {
	case "kind":
		// Filters spell the kinds in lower case.
		return map[Kind]string{View: "view", Active: "active", Committed: "committed"}[i.Kind], i.Kind != Unknown
	case "name":
		return i.Name, i.Name != ""
	case "parent":
		return i.Parent, i.Parent != ""
	case "labels":
		return filter.Labels(i.Labels, path[1:])
	}
	return "", false
}
