package ociruntime

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestTheProgramIsLookedForWhereItIsMountedFrom(t *testing.T) {
	mounts := []specs.Mount{
		{Destination: "/data", Source: "/host/data"},
		{Destination: "/data/script", Source: "/host/script"},
		{Destination: "/data2", Source: "/host/other"},
	}
	for _, c := range []struct{ name, file, top, below string }{
		{"the rootfs has what no mount covers", "/bin/sh", "/rootfs", "/bin/sh"},
		{"a mounted directory has its own", "/data/x/y", "/host/data", "/x/y"},
		{"the last mount wins", "/data/script", "/host/script", ""},
		{"a longer name is another directory", "/data3/x", "/rootfs", "/data3/x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if top, below := whereIs(c.file, "/rootfs", mounts); top != c.top || below != c.below {
				t.Errorf("whereIs(%q) = %q, %q; want %q, %q", c.file, top, below, c.top, c.below)
			}
		})
	}
}
