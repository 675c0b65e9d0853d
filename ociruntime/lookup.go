package ociruntime

import (
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// defaultPath is where programs are looked for when process.env has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// findProgram looks for process.args[0] as the user who will run it, and keeps
// its path in a register: a missing program is an error of create already.
func (c *compiler) findProgram() {
	name := c.process.Args[0]
	found := c.label()
	c.program = c.reg()
	if strings.Contains(name, "/") {
		c.stage("find the program", name)
		c.call("faccessat", cwd(), str(name), num(unix.X_OK))
		c.set(name)
		return
	}
	c.stage(lookInPath, name)
	for _, dir := range strings.Split(c.searchPath(), ":") {
		if dir == "" {
			continue // the working directory is not searched
		}
		candidate := path.Join(dir, name)
		nextDir, isFile := c.label(), c.label()
		c.call("faccessat", cwd(), str(candidate), num(unix.X_OK)).orElse(nextDir,
			unix.ENOENT, unix.EACCES, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EPERM)
		// Directories pass that too; a file does not open as one.
		h := named(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY|O_CLOEXEC")
		c.call("openat", cwd(), str(candidate), h).goTo(nextDir).orElse(isFile, unix.ENOTDIR)
		c.mark(isFile)
		c.set(candidate).goTo(found)
		c.mark(nextDir)
	}
	c.call("faccessat", cwd(), str(""), num(unix.X_OK)) // ENOENT: nothing was found
	c.mark(found)
}

// lookInPath is the name of the steps that search PATH; errors are told by it.
const lookInPath = "look in $PATH for"

func (c *compiler) set(program string) *Step {
	s := c.call("set", str(program))
	s.Out = c.program
	return s
}

// searchPath is the value of PATH in process.env.
func (c *compiler) searchPath() string {
	p := defaultPath
	for _, e := range c.process.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			p = v
		}
	}
	return p
}
