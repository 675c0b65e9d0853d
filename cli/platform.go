package cli

import (
	"encoding/json"
	"fmt"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// platformJSON reads OS/ARCH[/VARIANT] and gives the API's form of it.
func platformJSON(s string) (string, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 1 || len(parts) > 3 || strings.Contains(s, "//") || s == "" {
		return "", fmt.Errorf("invalid platform %q: want OS/ARCH[/VARIANT]", s)
	}
	p := ocispec.Platform{OS: parts[0]}
	if len(parts) > 1 {
		p.Architecture = parts[1]
	}
	if len(parts) > 2 {
		p.Variant = parts[2]
	}
	raw, err := json.Marshal(p)
	return string(raw), err
}
