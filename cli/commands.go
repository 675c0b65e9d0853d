package cli

// commands is the whole command line: the drawing that `gantry --help` prints.
func commands() []entry {
	return []entry{
		{name: "run", group: common, build: runCommand},
		{name: "create", build: createCommand},
		{name: "pull", group: common, build: pullCommand},
		{name: "version", group: common, build: versionCommand},
	}
}
