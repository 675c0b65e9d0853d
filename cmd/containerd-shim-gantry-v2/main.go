// Containerd-shim-gantry-v2 is the shim that containerd's runtime name
// io.containerd.gantry.v2 stands for, and the logger program of api/stdio.
package main

import (
	"os"

	"github.com/gantryd/gantry/shim"
)

func main() {
	os.Exit(shim.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
