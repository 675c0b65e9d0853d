package command

import (
	"fmt"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/internal/version"
)

var versionCommand = command{
	name: "version", least: 0, most: 0,
	about: "print the version",
	flags: plain(printVersion),
}

// printVersion has the lines that dockerd and containerd read from runc.
func printVersion(s *session, _ []string) (int, error) {
	_, err := fmt.Fprintf(s.stdout, "%s version %s\ncommit: %s\nspec: %s\ngo: %s\n",
		program, version.Version, version.Commit, specs.Version, runtime.Version())
	return 0, err
}
