// Command gantry is the docker-compatible command line. It talks to an engine,
// ours or dockerd, over the Docker Engine API and does nothing itself.
package main

import (
	"context"
	"os"
	"time"

	"github.com/gantryd/gantry/cli"
)

func main() {
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, time.Now()))
}
