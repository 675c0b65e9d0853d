package bench

import (
	"flag"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/test/rig"
)

var (
	reportFile = flag.String("report", "", "write the report to this file")
	only       = flag.String("only", "", "measure only the chapters whose title contains this")
	runs       = flag.Int("runs", 30, "how often each thing is measured")
	pulls      = flag.Int("pulls", 5, "how often the big image is pulled")
	crowds     = flag.Int("crowds", 3, "how often the crowd is started")
	many       = flag.Int("many", 200, "how many containers a crowd has")
	blobs      = flag.Int("blobs", 10000, "how many blobs are listed and collected")
	printed    = flag.Int("printed", 500, "how many megabytes a container prints")
	known      = flag.Int("known", 1000, "how many containers a daemon has that is started again")
	short      = flag.Bool("short", false, "measure a few times only, to see that everything runs: the other flags then say nothing")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.bench"); f == nil || f.Value.String() == "" {
		os.Exit(m.Run()) // a plain 'go test' measures nothing
	}
	if *short {
		*runs, *pulls, *crowds, *many, *blobs, *printed, *known = 3, 1, 1, 16, 200, 50, 20
	}
	rig.Main(m, unix.CLONE_NEWNET)
}
