// Gantry-runtime is the OCI runtime as a program, with the command line that
// runc has: what docker, containerd, podman and CRI-O call.
package main

import (
	"os"

	"github.com/gantryd/gantry/ociruntime/command"
)

func main() {
	os.Exit(command.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
