// Containerd-shim-gantry-v2 is the shim that containerd's runtime name
// io.containerd.gantry.v2 stands for, and the logger program of api/stdio.
//
// How many processors it uses is said by its environment (GOMAXPROCS), so the
// runtime need not keep the files of its cgroup open to find out.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"github.com/gantryd/gantry/shim"
)

func main() {
	os.Exit(shim.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
