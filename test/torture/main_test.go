package torture

import (
	"flag"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

var (
	seconds = flag.Int("seconds", 30, "how long to torture")
	logFile = flag.String("log", "", "keep the log of gantryd here")
	seed    = flag.Uint64("seed", 0, "of the clients' choices; 0 takes another each time")
)

func TestMain(m *testing.M) { rig.Main(m) }
