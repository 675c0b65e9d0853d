// Gantry-runtime is the OCI runtime as a program, with the command line that
// runc has: what docker, containerd, podman and CRI-O call.
package main

import (
	"os"
	"time"

	"github.com/gantryd/gantry/internal/slack"
	"github.com/gantryd/gantry/ociruntime/command"
)

func main() {
	_ = slack.Monitor(time.Millisecond) // where it cannot be set, a command costs a little more
	os.Exit(command.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
