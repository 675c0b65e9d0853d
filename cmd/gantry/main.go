// Command gantry is the docker-compatible command line. It talks to an engine,
// ours or dockerd, over the Docker Engine API and does nothing itself.
package main

import (
	"context"
	"os"
	"time"

	"github.com/gantryd/gantry/cli"
	"github.com/gantryd/gantry/internal/slack"
)

func main() {
	_ = slack.Monitor(time.Millisecond) // where it cannot be set, a command costs a little more
	os.Exit(cli.Main(context.Background(), os.Args[1:], cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, time.Now()))
}
