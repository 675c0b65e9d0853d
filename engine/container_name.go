package engine

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// The words of random names: what a shipyard and its sea are like, and what
// stands or moves there.
var (
	nameFirst = strings.Fields("able amber ample brisk broad calm clear deft deep eager early fair fast firm fleet fresh gentle glad golden grand hardy high keen kind light lively lofty loyal lucid merry mighty mild neat noble patient plain proud quick quiet rapid ready regal robust rosy salty silver smooth sound spry steady still stout strong sunny sure swift tall tidal tidy trim true upright vivid warm wide wise")
	nameLast  = strings.Fields("anchor anvil barge beacon bollard boom bosun bow brig buoy cable canal capstan cargo clipper coaster compass crane crew cutter davit deck derrick dock dredge drydock fathom ferry galley gantry gull gunwale harbor hatch hawser helm hoist hull jetty jib keel ketch knot ledger lighter lock mast moor oar pallet pier pilot pontoon port pulley quay rigger rudder sail schooner sextant shackle shoal skiff sling sloop spar stern stevedore tackle tide tiller trawler tug wharf winch yard yawl")
)

// reserveRandom gives id a name that nobody has.
func (c *containers) reserveRandom(id string) (string, error) {
	for try := range 8 {
		name := nameFirst[rand.N(len(nameFirst))] + "_" + nameLast[rand.N(len(nameLast))]
		if try > 2 {
			name += fmt.Sprint(rand.N(1000))
		}
		if c.reserve(name, id) == nil {
			return name, nil
		}
	}
	return id[:12], c.reserve(id[:12], id)
}
