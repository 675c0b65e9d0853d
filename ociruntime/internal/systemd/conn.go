package systemd

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	busName     = "org.freedesktop.systemd1"
	managerPath = objectPath("/org/freedesktop/systemd1")
	managerName = busName + ".Manager"

	// patience bounds each wait for an answer.
	patience = 30 * time.Second
)

// Conn is a connection to a systemd: the system's, or that of the user.
type Conn struct {
	socket *os.File
	in     *bufio.Reader
	serial uint32
	jobs   map[objectPath]string // results of jobs that nobody has waited for yet
}

// Connect connects to the systemd that this user has. Its private socket comes
// first, which needs no message bus.
func Connect() (*Conn, error) {
	private, bus := "/run/systemd/private", address("DBUS_SYSTEM_BUS_ADDRESS", "/run/dbus/system_bus_socket")
	if user := User(); user != 0 {
		run := os.Getenv("XDG_RUNTIME_DIR")
		if run == "" {
			run = "/run/user/" + strconv.Itoa(user)
		}
		private = filepath.Join(run, "systemd/private")
		bus = address("DBUS_SESSION_BUS_ADDRESS", filepath.Join(run, "bus"))
	}
	c, err := dial(private)
	if err == nil {
		return c, nil
	}
	c, onBus := dial(bus)
	if onBus == nil {
		onBus = c.join()
	}
	if onBus != nil {
		return nil, fmt.Errorf("connect to systemd: %w", errors.Join(err, onBus))
	}
	return c, nil
}

// User is the id of this user as systemd has it: that outside, where we are in a
// user namespace (user_namespaces(7)), as podman without root has it.
func User() int {
	uid := os.Geteuid()
	data, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return uid // a kernel without user namespaces
	}
	for line := range strings.Lines(string(data)) {
		var inside, outside, count int
		if n, err := fmt.Sscan(line, &inside, &outside, &count); n == 3 && err == nil && inside <= uid && uid-inside < count {
			return outside + uid - inside
		}
	}
	return uid
}

// address is the socket that a variable of the environment names.
func address(variable, otherwise string) string {
	for entry := range strings.SplitSeq(os.Getenv(variable), ";") {
		if path, ok := strings.CutPrefix(entry, "unix:path="); ok {
			path, _, _ = strings.Cut(path, ",")
			return path
		}
	}
	return otherwise
}

// dial connects to a socket and says who we are ("Authentication Protocol",
// mechanism EXTERNAL: the kernel tells the other side).
func dial(path string) (_ *Conn, err error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit)
	socket := os.NewFile(uintptr(fd), path)
	c := &Conn{socket: socket, in: bufio.NewReader(socket), jobs: map[objectPath]string{}}
	who := hex.EncodeToString([]byte(strconv.Itoa(User())))
	// All in one, as systemd's own clients have it: what came together with BEGIN,
	// its server would leave unread until more comes.
	if _, err := io.WriteString(socket, "\x00AUTH EXTERNAL "+who+"\r\nBEGIN\r\n"); err != nil {
		socket.Close()
		return nil, fmt.Errorf("authenticate at %s: %w", path, err)
	}
	answer, err := c.in.ReadString('\n')
	if err == nil && !strings.HasPrefix(answer, "OK ") {
		err = fmt.Errorf("the answer is %q", answer)
	}
	if err != nil {
		socket.Close()
		return nil, fmt.Errorf("authenticate at %s: %w", path, err)
	}
	return c, nil
}

// join becomes a client of a message bus, which hears of jobs.
func (c *Conn) join() error {
	const bus, path = "org.freedesktop.DBus", "/org/freedesktop/DBus"
	if _, err := c.do(bus, path, bus, "Hello"); err != nil {
		return errors.Join(err, c.Close())
	}
	match := "type='signal',interface='" + managerName + "',member='" + jobRemoved + "'"
	if _, err := c.do(bus, path, bus, "AddMatch", match); err != nil {
		return errors.Join(err, c.Close())
	}
	return nil
}

// Close closes the connection.
func (c *Conn) Close() error { return c.socket.Close() }

// Error is an answer that is an error.
type Error struct {
	Method  string
	Name    string // "org.freedesktop.systemd1.NoSuchUnit"
	Message string
}

// Error says what was asked for, and what systemd says to it.
func (e *Error) Error() string { return fmt.Sprintf("systemd: %s: %s", e.Method, e.Message) }

// noSuchUnit says that the unit is not there (any more).
func noSuchUnit(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Name == busName+".NoSuchUnit"
}

// do calls a method and waits for the answer.
func (c *Conn) do(dest string, path objectPath, iface, member string, args ...any) (*message, error) {
	c.serial++
	b, err := call(c.serial, dest, path, iface, member, args...)
	if err != nil {
		return nil, fmt.Errorf("systemd: %s: %w", member, err)
	}
	if _, err := c.socket.Write(b); err != nil {
		return nil, fmt.Errorf("systemd: %s: %w", member, err)
	}
	for {
		m, err := c.read()
		if err != nil {
			return nil, fmt.Errorf("systemd: %s: %w", member, err)
		}
		switch {
		case m.reply != c.serial:
		case m.kind == methodReturn:
			return m, nil
		case m.kind == failure:
			e := &Error{Method: member, Name: m.fault, Message: m.fault}
			if strings.HasPrefix(m.sig, "s") {
				e.Message = m.body.str()
			}
			return nil, e
		}
	}
}

const jobRemoved = "JobRemoved"

// read reads one message, and keeps the results of jobs.
func (c *Conn) read() (*message, error) {
	b := make([]byte, fixedHeader)
	if _, err := io.ReadFull(c.in, b); err != nil {
		return nil, err
	}
	fields, body, err := sizes(b)
	if err != nil {
		return nil, err
	}
	b = append(b, make([]byte, fields+body)...)
	if _, err := io.ReadFull(c.in, b[fixedHeader:]); err != nil {
		return nil, err
	}
	m, err := parse(b)
	if err != nil {
		return nil, err
	}
	if m.kind == signal && m.member == jobRemoved && m.sig == "uoss" {
		m.body.u32()
		job := objectPath(m.body.str())
		m.body.str()
		c.jobs[job] = m.body.str()
		return m, m.body.err
	}
	return m, nil
}

// job asks for a job and waits for its end.
func (c *Conn) job(member string, args ...any) error {
	m, err := c.do(busName, managerPath, managerName, member, args...)
	if err != nil {
		return err
	}
	job := objectPath(m.body.str())
	for {
		if result, ok := c.jobs[job]; ok {
			delete(c.jobs, job)
			if result != "done" {
				return fmt.Errorf("systemd: %s %v: the job's result is %q", member, args[0], result)
			}
			return nil
		}
		if _, err := c.read(); err != nil {
			return fmt.Errorf("systemd: wait for %s %v: %w", member, args[0], err)
		}
	}
}
