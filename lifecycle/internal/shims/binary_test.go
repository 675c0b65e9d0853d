package shims

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"
	"github.com/containerd/errdefs"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestTheAnswerOfStartHasThreeForms(t *testing.T) {
	pb, err := proto.Marshal(&bootstrap.BootstrapResult{Version: 3, Address: "unix:///s", Protocol: "ttrpc"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, in, want string
	}{
		{"the plain address of containerd 1.2", "unix:///run/s\n", "2 unix:///run/s"},
		{"a path of older shims", "/run/s", "2 /run/s"},
		{"JSON since 1.7", `{"version":3,"address":"unix:///s","protocol":"ttrpc"}`, "3 unix:///s"},
		{"protobuf since 2.3", string(pb), "3 unix:///s"},
		{"nothing", "", "want unix://PATH"},
		{"a log line", "level=info msg=x", "want unix://PATH"},
		{"a version from the future", `{"version":9,"address":"unix:///s","protocol":"ttrpc"}`, "version 9"},
		{"another protocol", `{"version":2,"address":"unix:///s","protocol":"grpc"}`, `"grpc"`},
		{"another transport", `{"version":2,"address":"vsock://2:3","protocol":"ttrpc"}`, "want unix://PATH"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := parseStart([]byte(c.in))
			got := fmt.Sprintf("%d %s", r.GetVersion(), r.GetAddress())
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// script makes a shim binary.
func script(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "containerd-shim-x-v1")
	if err := os.WriteFile(name, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return name
}

func table(t *testing.T, dirs ...string) *Table {
	t.Helper()
	table, err := New(Config{Address: "/c.sock", Version: "v9", ShimDirs: dirs, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestARuntimeNamesItsShim(t *testing.T) {
	shim := script(t, "")
	tb := table(t, filepath.Dir(shim))
	for _, c := range []struct {
		runtime, want string
		kind          func(error) bool
	}{
		{"io.containerd.x.v1", shim, nil},
		{"com.example.x.v1", shim, nil},
		{shim, shim, nil},
		{"io.containerd.nosuch.v1", "", errdefs.IsNotFound},
		{"/no/such", "", errdefs.IsInvalidArgument},
		{"runc", "", errdefs.IsInvalidArgument},
		{"../x.v1", "", errdefs.IsInvalidArgument},
		{"", "", errdefs.IsInvalidArgument},
	} {
		got, err := tb.resolve(c.runtime)
		if got != c.want || c.kind == nil && err != nil || c.kind != nil && !c.kind(err) {
			t.Errorf("%q: got %q, %v", c.runtime, got, err)
		}
	}
}

// Old shims want the options on stdin, new ones BootstrapParams, and either may
// refuse the other: what a binary wants is found out once.
func TestAShimIsToldInTheFormThatItTakes(t *testing.T) {
	options := &anypb.Any{TypeUrl: "some.Options"}
	for _, c := range []struct {
		name, refuses string
		calls         string // of two starts
	}{
		{"an old shim", "task-1", "oo"},
		{"a new shim", "^..some.Options$", "opp"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			// It notes which form it was given, by what only that has.
			shim := script(t, fmt.Sprintf(`cat > %[1]s/in
if grep -q task-1 %[1]s/in; then printf p >> %[1]s/calls; else printf o >> %[1]s/calls; fi
if grep -aqz '%[2]s' %[1]s/in; then echo refused >&2; exit 1; fi
echo unix:///s
`, dir, c.refuses))
			tb := table(t)
			b := bundle{ns: "ns", id: "task-1", dir: dir}
			for range 2 {
				where, err := tb.start(t.Context(), shim, b, options)
				if err != nil || where.Address != "unix:///s" {
					t.Fatalf("start: %v, %v", where, err)
				}
			}
			calls, err := os.ReadFile(filepath.Join(dir, "calls"))
			if err != nil || string(calls) != c.calls {
				t.Errorf("calls were %s, %v, want %s", calls, err, c.calls)
			}
		})
	}
	_, err := table(t).start(t.Context(), script(t, "echo broken >&2; exit 3"), bundle{id: "i", dir: t.TempDir()}, options)
	if err == nil || !strings.Contains(err.Error(), "broken") || strings.Contains(err.Error(), "\n") {
		t.Errorf("a broken shim: %v", err)
	}
}

func TestShimsAreToldAllThatTheyMayAsk(t *testing.T) {
	tb := table(t)
	tb.cfg.Debug = true
	p := tb.params(bundle{ns: "ns", id: "i"}, &anypb.Any{TypeUrl: "u"})
	want := &bootstrap.BootstrapParams{
		InstanceID: "i", Namespace: "ns", LogLevel: bootstrap.LogLevel_LOG_LEVEL_DEBUG, ContainerdVersion: "v9",
		ContainerdGrpcAddress: "/c.sock", ContainerdTtrpcAddress: "/c.sock.ttrpc", ContainerdBinary: tb.self,
		Extensions: []*bootstrap.Extension{{Value: &anypb.Any{TypeUrl: "u"}}},
	}
	if !proto.Equal(p, want) {
		t.Errorf("got %v, want %v", p, want)
	}
}
