package cli

// commands is the whole command line: the drawing that `gantry --help` prints.
func commands() []entry {
	return []entry{
		{name: "run", group: common, build: runCommand, args: knownImages, one: true},
		{name: "exec", group: common, build: execCommand, args: runningContainers, one: true},
		{name: "ps", group: common, build: psCommand},
		{name: "pull", group: common, build: pullCommand},
		{name: "push", group: common, build: pushCommand, args: knownImages, one: true},
		{name: "images", group: common, build: imagesCommand},
		{name: "login", group: common, build: loginCommand},
		{name: "logout", group: common, build: logoutCommand},
		{name: "version", group: common, build: versionCommand},
		{name: "info", group: common, build: infoCommand},

		{name: "container", short: "Manage containers", sub: containerCommands()},
		{name: "context", short: "Manage contexts", sub: contextCommands()},
		{name: "image", short: "Manage images", sub: imageCommands()},
		{name: "network", short: "Manage networks", sub: networkCommands()},
		{name: "system", short: "Manage Gantry", sub: systemCommands()},
		{name: "volume", short: "Manage volumes", sub: volumeCommands()},

		{name: "attach", build: attachCommand, args: runningContainers, one: true},
		{name: "commit", build: commitCommand, args: allContainers, one: true},
		{name: "completion", build: completionCommand},
		{name: "cp", build: cpCommand},
		{name: "create", build: createCommand, args: knownImages, one: true},
		{name: "diff", build: diffCommand, args: allContainers, one: true},
		{name: "events", build: eventsCommand},
		{name: "export", build: exportCommand, args: allContainers, one: true},
		{name: "history", build: historyCommand, args: knownImages, one: true},
		{name: "import", build: importCommand},
		{name: "inspect", build: inspectCommand, args: allContainers},
		{name: "kill", build: killCommand, args: runningContainers},
		{name: "load", build: loadCommand},
		{name: "logs", build: logsCommand, args: runningContainers, one: true},
		{name: "pause", build: pauseCommand, args: runningContainers},
		{name: "port", build: portCommand, args: runningContainers, one: true},
		{name: "rename", build: renameCommand, args: allContainers, one: true},
		{name: "restart", build: restartCommand, args: allContainers},
		{name: "rm", build: rmCommand, args: allContainers},
		{name: "rmi", build: rmiCommand, args: knownImages},
		{name: "save", build: saveCommand, args: knownImages},
		{name: "start", build: startCommand, args: allContainers},
		{name: "stats", build: statsCommand, args: runningContainers},
		{name: "stop", build: stopCommand, args: runningContainers},
		{name: "tag", build: tagCommand, args: knownImages, one: true},
		{name: "top", build: topCommand, args: runningContainers, one: true},
		{name: "unpause", build: unpauseCommand, args: runningContainers},
		{name: "update", build: updateCommand, args: allContainers},
		{name: "wait", build: waitCommand, args: allContainers},
	}
}

func containerCommands() []entry {
	return []entry{
		{name: "attach", build: attachCommand, args: runningContainers, one: true},
		{name: "commit", build: commitCommand, args: allContainers, one: true},
		{name: "cp", build: cpCommand},
		{name: "create", build: createCommand, args: knownImages, one: true},
		{name: "diff", build: diffCommand, args: allContainers, one: true},
		{name: "exec", build: execCommand, args: runningContainers, one: true},
		{name: "export", build: exportCommand, args: allContainers, one: true},
		{name: "inspect", build: inspectOf("container", "inspect [OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on one or more containers"), args: allContainers},
		{name: "kill", build: killCommand, args: runningContainers},
		{name: "logs", build: logsCommand, args: runningContainers, one: true},
		{name: "ls", build: containerLsCommand},
		{name: "pause", build: pauseCommand, args: runningContainers},
		{name: "port", build: portCommand, args: runningContainers, one: true},
		{name: "prune", build: containerPruneCommand},
		{name: "rename", build: renameCommand, args: allContainers, one: true},
		{name: "restart", build: restartCommand, args: allContainers},
		{name: "rm", build: rmCommand, args: allContainers},
		{name: "run", build: runCommand, args: knownImages, one: true},
		{name: "start", build: startCommand, args: allContainers},
		{name: "stats", build: statsCommand, args: runningContainers},
		{name: "stop", build: stopCommand, args: runningContainers},
		{name: "top", build: topCommand, args: runningContainers, one: true},
		{name: "unpause", build: unpauseCommand, args: runningContainers},
		{name: "update", build: updateCommand, args: allContainers},
		{name: "wait", build: waitCommand, args: allContainers},
	}
}

func contextCommands() []entry {
	return []entry{
		{name: "create", build: contextCreateCommand},
		{name: "inspect", build: contextInspectCommand, args: contextNames},
		{name: "ls", build: contextLsCommand},
		{name: "rm", build: contextRmCommand, args: contextNames},
		{name: "show", build: contextShowCommand},
		{name: "use", build: contextUseCommand, args: contextNames, one: true},
	}
}

func imageCommands() []entry {
	return []entry{
		{name: "history", build: historyCommand, args: knownImages, one: true},
		{name: "import", build: importCommand},
		{name: "inspect", build: inspectOf("image", "inspect [OPTIONS] IMAGE [IMAGE...]", "Display detailed information on one or more images"), args: knownImages},
		{name: "load", build: loadCommand},
		{name: "ls", build: imageLsCommand},
		{name: "prune", build: imagePruneCommand},
		{name: "pull", build: pullCommand},
		{name: "push", build: pushCommand, args: knownImages, one: true},
		{name: "rm", build: imageRmCommand, args: knownImages},
		{name: "save", build: saveCommand, args: knownImages},
		{name: "tag", build: tagCommand, args: knownImages, one: true},
	}
}

func networkCommands() []entry {
	return []entry{
		{name: "connect", build: networkConnectCommand, args: networkNames, one: true},
		{name: "create", build: networkCreateCommand},
		{name: "disconnect", build: networkDisconnectCommand, args: networkNames, one: true},
		{name: "inspect", build: inspectOf("network", "inspect [OPTIONS] NETWORK [NETWORK...]", "Display detailed information on one or more networks"), args: networkNames},
		{name: "ls", build: networkLsCommand},
		{name: "prune", build: networkPruneCommand},
		{name: "rm", build: networkRmCommand, args: networkNames},
	}
}

func systemCommands() []entry {
	return []entry{
		{name: "df", build: dfCommand},
		{name: "dial-stdio", build: dialStdioCommand},
		{name: "events", build: eventsCommand},
		{name: "info", build: infoCommand},
		{name: "prune", build: systemPruneCommand},
	}
}

func volumeCommands() []entry {
	return []entry{
		{name: "create", build: volumeCreateCommand},
		{name: "inspect", build: inspectOf("volume", "inspect [OPTIONS] VOLUME [VOLUME...]", "Display detailed information on one or more volumes"), args: volumeNames},
		{name: "ls", build: volumeLsCommand},
		{name: "prune", build: volumePruneCommand},
		{name: "rm", build: volumeRmCommand, args: volumeNames},
	}
}
