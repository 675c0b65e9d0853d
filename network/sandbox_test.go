package network

import (
	"strings"
	"testing"
)

func TestIDsCanBeFileNames(t *testing.T) {
	for id, want := range map[string]bool{
		"a": true, "A0_.-": true, "0": true, strings.Repeat("a", 201): true,
		"": false, ".": false, "..": false, "_a": false, "-a": false, "a/b": false, "a b": false, "ä": false,
		"a\x00": false, strings.Repeat("a", 202): false,
	} {
		if got := validID(id); got != want {
			t.Errorf("%q: got %v, want %v", id, got, want)
		}
	}
}
