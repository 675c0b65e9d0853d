package command

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a service manager that listens (sd_notify(3)).
func manager(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "manager")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, "NOTIFY_SOCKET=" + socket
}

// heard is the next message, and the descriptor that comes with it, or -1.
func heard(t *testing.T, c *net.UnixConn) (string, int) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(time.Minute))
	body, control := make([]byte, 4096), make([]byte, 128)
	n, oobn, _, _, err := c.ReadMsgUnix(body, control)
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if messages, err := unix.ParseSocketControlMessage(control[:oobn]); err == nil && len(messages) == 1 {
		if fds, err := unix.ParseUnixRights(&messages[0]); err == nil && len(fds) == 1 {
			fd = fds[0]
		}
	}
	return string(body[:n]), fd
}

// say says something as a process in the container would: through its root.
func say(t *testing.T, pid int, messages ...string) {
	t.Helper()
	c, err := net.Dial("unixgram", fmt.Sprintf("/proc/%d/root/run/notify/notify.sock", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, m := range messages {
		if _, err := c.Write([]byte(m)); err != nil {
			t.Fatal(err)
		}
	}
}

// service waits, with the socket that it is told of.
var service = shell("[ -S $NOTIFY_SOCKET ] && echo has $NOTIFY_SOCKET; exec sleep 1000")

func TestReadinessIsPassedOn(t *testing.T) {
	for name, row := range map[string]struct {
		before []string
		args   []string
		own    bool // the runtime stays, and is the main process
	}{
		"run detached":       {nil, []string{"run", "--detach"}, false},
		"run, in foreground": {nil, []string{"run"}, true},
		"create, start":      {[]string{"create"}, []string{"start"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTool(t)
			conn, env := manager(t)
			dir := bundle(t, service)
			in := func(args []string) *exec.Cmd {
				args = append([]string{}, args...)
				if args[0] != "start" {
					args = append(args, "--bundle", dir)
				}
				cmd := r.command(append(args, "x")...)
				cmd.Env = append(cmd.Env, env)
				return cmd
			}
			if row.before != nil {
				if res := run(t, in(row.before)); res.code != 0 {
					t.Fatalf("%v: %+v", row.before, res)
				}
			}
			cmd := in(row.args)
			out, err := os.Create(filepath.Join(t.TempDir(), "out")) // a pipe would be the container's, too
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			cmd.Stdout, cmd.Stderr = out, out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() { cmd.Wait(); close(done) }()
			r.awaitStatus(t, "x", "running")
			if row.before == nil {
				for i := 0; !strings.Contains(read(t, out.Name()), "has /run/notify/notify.sock"); i++ {
					if i == 6000 {
						t.Fatalf("it does not have the socket: %q", read(t, out.Name()))
					}
					time.Sleep(10 * time.Millisecond)
				}
			}
			pid := r.state(t, "x").Pid
			main := pid
			if row.own {
				main = cmd.Process.Pid
			}
			say(t, pid, "STATUS=still getting there", "FDSTORE=1\nMAINPID=1", "STATUS=there\nREADY=1\nMAINPID=1")
			for _, want := range []string{"READY=1\n", "MAINPID=" + strconv.Itoa(main) + "\n"} {
				if got, _ := heard(t, conn); got != want {
					t.Errorf("the manager is told %q, want %q", got, want)
				}
			}
			got, fd := heard(t, conn)
			if got != "BARRIER=1" || fd < 0 {
				t.Fatalf("the manager is told %q with descriptor %d, want a barrier", got, fd)
			}
			select {
			case <-done:
				t.Error("it does not wait for the manager")
			default:
			}
			unix.Close(fd)
			if row.own {
				r.must(t, "kill", "x", "KILL")
				<-done
				return
			}
			<-done
			if code := cmd.ProcessState.ExitCode(); code != 0 {
				t.Errorf("exit code %d: %s", code, read(t, out.Name()))
			}
			r.must(t, "delete", "--force", "x")
			reapChild(t, pid)
		})
	}
}

// awaitStatus waits until a container is there and has a status.
func (r tool) awaitStatus(t *testing.T, id, status string) {
	t.Helper()
	for range 6000 {
		if res := r.run(t, "state", id); strings.Contains(res.out, `"status": "`+status+`"`) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s is not %s", id, status)
}

func TestAServiceThatEndsBeforeItIsReady(t *testing.T) {
	r := newTool(t)
	conn, env := manager(t)
	cmd := r.command("run", "--detach", "--bundle", bundle(t, shell("exit 3")), "x")
	cmd.Env = append(cmd.Env, env)
	if res := run(t, cmd); res.code != 0 {
		t.Errorf("%+v", res)
	}
	conn.SetReadDeadline(time.Now())
	if n, err := conn.Read(make([]byte, 100)); err == nil {
		t.Errorf("the manager is told %d bytes", n)
	}
	st := r.must(t, "list", "--format", "json")
	r.must(t, "delete", "x")
	unix.Wait4(-1, nil, 0, nil)
	if !strings.Contains(st, "stopped") {
		t.Errorf("list: %s", st)
	}
}

func TestAManagerThatDoesNotListenIsNamed(t *testing.T) {
	r := newTool(t)
	absent := filepath.Join(t.TempDir(), "absent")
	cmd := r.command("run", "--bundle", bundle(t, service), "x")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+absent)
	res := run(t, cmd)
	if res.code != 1 || !strings.Contains(res.err, "NOTIFY_SOCKET="+absent+": no such file") || strings.Count(res.err, "\n") != 1 {
		t.Errorf("%+v", res)
	}
}
