package bundle

import (
	"fmt"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// seccomp resolves the profile that c asks for, by the architecture, the kernel
// and the capabilities of s.
func (c Container) seccomp(s *specs.Spec) (*specs.LinuxSeccomp, error) {
	switch {
	case c.Seccomp == "unconfined":
		return nil, nil
	case c.Seccomp != "":
		profile, err := seccomp.LoadProfile(c.Seccomp, s)
		if err != nil {
			return nil, refuse("read seccomp profile: %v", err)
		}
		return profile, nil
	case c.Privileged:
		return nil, nil
	}
	profile, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		return nil, fmt.Errorf("resolve the default seccomp profile: %w", err)
	}
	return profile, nil
}
