package cli

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignalsAreNamedAsTheEngineKnowsThem(t *testing.T) {
	for _, c := range []struct {
		name   string
		signal os.Signal
		want   string
	}{
		{"without SIG", unix.SIGTERM, "TERM"},
		{"a real-time signal by its number", sigRTMin3, "37"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := signalName(c.signal); got != c.want {
				t.Errorf("signalName(%v) = %q, want %q", c.signal, got, c.want)
			}
		})
	}
}
