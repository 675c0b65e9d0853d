// Package gantry holds the law of imports over the whole tree.
package gantry

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/gantryd/gantry/"

// law says, for each folder at the root, what of ours it may import (docs/architecture.md).
// A process boundary is an import boundary: two roles that meet over a wire share
// the wire's contract and nothing else. The one exception is that shim links ociruntime.
var law = map[string][]string{
	"api":        {},
	"internal":   {"internal"},
	"ociruntime": {"internal"},
	"shim":       {"api", "ociruntime", "internal"},
	"remote":     {"internal"},
	"store":      {"store", "remote", "api", "internal"},
	"bundle":     {"internal"},
	"network":    {"internal"},
	"volume":     {"internal"},
	"registry":   {"store", "internal"},
	"lifecycle":  {"store", "remote", "api", "internal"},
	"engine":     {"store", "remote", "bundle", "network", "volume", "api", "internal"},
	"cli":        {"api", "internal"},
	"compose":    {"api", "internal"},
	"cri":        {"store", "remote", "bundle", "network", "volume", "api", "internal"},
	"builder":    {"store", "remote", "bundle", "network", "api", "internal"},
	"cmd":        {"cli", "engine", "lifecycle", "shim", "ociruntime", "registry", "cri", "builder", "network", "api", "internal"},
	"test":       {"test", "api", "internal"},
}

// heavy says which modules a small program must not link (design: small programs stay small).
var heavy = map[string][]string{
	"cmd/gantry-runtime":            {"google.golang.org/grpc", "google.golang.org/protobuf/proto", "net/http", "github.com/spf13/cobra"},
	"cmd/containerd-shim-gantry-v2": {"google.golang.org/grpc", "google.golang.org/protobuf/proto", "net/http", "github.com/spf13/cobra"},
	"cmd/gantry":                    {"google.golang.org/grpc", "go.etcd.io/bbolt", "github.com/vishvananda/netlink"},
	"cmd/gantryd":                   {"text/template", "html/template"}, // with either, no unused method of any package is dropped
}

type pkg struct {
	ImportPath   string
	Doc          string
	Imports      []string
	TestImports  []string
	XTestImports []string
	Deps         []string
	GoFiles      []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-tags", "grpcnotrace", "-json=ImportPath,Doc,Imports,TestImports,XTestImports,Deps,GoFiles", "./...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var pkgs []pkg
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// folder is the first element of a package's path below the module, "" for the root.
func folder(path string) string {
	rest, ok := strings.CutPrefix(path, module)
	if !ok {
		return ""
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

func TestImportsKeepTheLaw(t *testing.T) {
	for _, p := range list(t) {
		from := folder(p.ImportPath)
		if from == "" {
			continue
		}
		allowed, ok := law[from]
		if !ok {
			t.Errorf("%s: folder %q is not in the law of imports", p.ImportPath, from)
			continue
		}
		imports := slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		for _, imp := range imports {
			to := folder(imp)
			if to == "" || to == from || slices.Contains(allowed, to) {
				continue
			}
			t.Errorf("%s imports %s: %s may import only %v", p.ImportPath, imp, from, allowed)
		}
	}
}

func TestEveryPackageHasItsDoorComment(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s: no package comment", p.ImportPath)
		}
	}
}

func TestSmallProgramsStaySmall(t *testing.T) {
	for _, p := range list(t) {
		for _, bad := range heavy[strings.TrimPrefix(p.ImportPath, module)] {
			if slices.ContainsFunc(p.Deps, func(d string) bool { return d == bad || strings.HasPrefix(d, bad+"/") }) {
				t.Errorf("%s links %s", p.ImportPath, bad)
			}
		}
	}
}
