// Gantry-runtime is the OCI runtime as a program, with the command line that
// runc has: what docker, containerd, podman and CRI-O call.
package main

// How many processors the own cgroup has is of no use to a program that lives
// for ten milliseconds, and takes a part of the first to find out.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

import (
	"os"

	"github.com/gantryd/gantry/ociruntime/command"
)

func main() {
	os.Exit(command.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
