package torture

import (
	"flag"
	"os"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

var (
	seconds = flag.Int("seconds", 30, "how long to torture")
	logFile = flag.String("log", "", "keep the log of gantryd here")
	seed    = flag.Uint64("seed", 1, "of the choices; 0 takes another each time")
)

func TestMain(m *testing.M) {
	if os.Getenv(traceVar) != "" {
		traceHere()
	}
	rig.Main(m)
}
