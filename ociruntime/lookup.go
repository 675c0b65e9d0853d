package ociruntime

import (
	"path"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// defaultPath is where programs are looked for when process.env has no PATH.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// findTheProgram looks for process.args[0] as the user who will run it, and keeps
// its path in a register: a missing program is an error of create already.
func (c *compiler) findTheProgram() {
	name := c.process.Args[0]
	found := c.label()
	c.program = c.reg()
	if strings.Contains(name, "/") {
		c.stage(findProgram, name)
		c.executable(name)
		c.refuseDirectory(name)
		c.set(name)
		return
	}
	c.stage(lookInPath, name)
	for _, dir := range strings.Split(searchPath(c.process), ":") {
		if dir == "" {
			continue // the working directory is not searched
		}
		candidate := path.Join(dir, name)
		nextDir, isFile := c.label(), c.label()
		c.executable(candidate).orElse(nextDir,
			unix.ENOENT, unix.EACCES, unix.ENOTDIR, unix.ELOOP, unix.ENAMETOOLONG, unix.EPERM)
		// Directories pass that too; a file does not open as one.
		h := named(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY|O_CLOEXEC")
		c.call("openat", cwd(), str(candidate), h).goTo(nextDir).orElse(isFile, unix.ENOTDIR)
		c.mark(isFile)
		c.set(candidate).goTo(found)
		c.mark(nextDir)
	}
	c.executable("") // ENOENT: nothing was found
	c.mark(found)
}

// executable asks as execve will: by the effective id and its capabilities (Linux 5.8).
func (c *compiler) executable(name string) *Step {
	return c.call("faccessat2", cwd(), str(name), num(unix.X_OK), named(unix.AT_EACCESS, "AT_EACCESS"))
}

// Names of steps that errors are told by.
const (
	findProgram = "find the program"
	lookInPath  = "look in $PATH for"
)

// refuseDirectory says EISDIR for a directory: it passes for executable.
func (c *compiler) refuseDirectory(name string) {
	isDir, isFile := c.label(), c.label()
	h := named(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, "O_PATH|O_DIRECTORY|O_CLOEXEC")
	c.call("openat", cwd(), str(name), h).goTo(isDir).orElse(isFile, unix.ENOTDIR)
	c.mark(isDir)
	c.call("openat", cwd(), str(name), named(unix.O_WRONLY|unix.O_CLOEXEC, "O_WRONLY|O_CLOEXEC"))
	c.mark(isFile)
}

func (c *compiler) set(program string) *Step {
	s := c.call("set", str(program))
	s.Out = c.program
	return s
}

// searchPath is the value of PATH in process.env.
func searchPath(p *specs.Process) string {
	dirs := defaultPath
	for _, e := range p.Env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			dirs = v
		}
	}
	return dirs
}
