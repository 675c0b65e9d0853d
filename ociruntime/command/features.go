package command

import "github.com/gantryd/gantry/ociruntime"

var featuresCommand = command{
	name: "features", least: 0, most: 0,
	about: "print what this build can do, as the runtime specification has it",
	flags: plain(func(s *session, _ []string) (int, error) { return 0, printJSON(s.stdout, ociruntime.Features()) }),
}
