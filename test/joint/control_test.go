package joint

import (
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// The control: the list of behaviours is what the stock tools do, or it proves nothing.
func TestStockDockerOnStockDockerd(t *testing.T) {
	host := rig.NewHost(t)
	d := rig.StartDockerd(t, host)
	u := user{host, d.Docker}
	u.must(t, "load", "-q", "-i", archive(t, host))
	suite(t, u, everything&^oursOnly)
}
