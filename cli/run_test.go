package cli

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gantryd/gantry/api/stdio"
)

// oneContainer is an engine with a single container, c1. It turns what comes on
// stdin into capitals, says "err" on stderr, and ends when stdin does.
type oneContainer struct {
	startError string // refuses the start
	code       int

	mu      sync.Mutex
	calls   []string
	started chan struct{}
	ended   chan struct{}
}

func (e *oneContainer) note(call string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls = append(e.calls, call)
}

func (e *oneContainer) serve(t *testing.T) http.HandlerFunc {
	e.started, e.ended = make(chan struct{}), make(chan struct{})
	return func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
		e.note(r.Method + " /" + path)
		switch path {
		case "containers/create":
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"Id":"c1","Warnings":["careful"]}`)
		case "containers/c1/attach":
			conn, rw, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
			e.process(conn, rw.Reader)
		case "containers/c1/wait":
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush() // the head comes before the exit
			select {
			case <-e.ended:
				fmt.Fprintf(w, `{"StatusCode":%d}`, e.code)
			case <-r.Context().Done():
			}
		case "containers/c1/start":
			if e.startError != "" {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(w, `{"message":%q}`, e.startError)
				return
			}
			close(e.started)
			w.WriteHeader(http.StatusNoContent)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}
}

func (e *oneContainer) process(conn net.Conn, stdin *bufio.Reader) {
	select {
	case <-e.started:
	case <-func() chan struct{} {
		gone := make(chan struct{})
		if e.startError != "" {
			go func() { stdin.Peek(1); close(gone) }() // the client leaves
		}
		return gone
	}():
		return
	}
	in, _ := io.ReadAll(stdin) // until the client closes its half
	frame(conn, stdio.Stdout, strings.ToUpper(string(in)))
	frame(conn, stdio.Stderr, "err\n")
	close(e.ended)
}

func frame(w io.Writer, stream byte, text string) {
	head := [stdio.FrameHeaderLen]byte{stream}
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	w.Write(append(head[:], text...))
}

func TestRunCarriesStreamsAndExitCode(t *testing.T) {
	e := &oneContainer{code: 42}
	got := runCLI(t, serve(t, e.serve(t)), "hello\n", "run", "-i", "busybox", "cat")
	diff(t, "stdout", "HELLO\n", got.stdout)
	diff(t, "stderr", "WARNING: careful\nerr\n", got.stderr)
	if got.exit != 42 {
		t.Errorf("exit %d, want the container's 42", got.exit)
	}
	start := slices.Index(e.calls, "POST /containers/c1/start")
	for _, before := range []string{"POST /containers/create", "POST /containers/c1/attach", "POST /containers/c1/wait"} {
		if i := slices.Index(e.calls, before); i < 0 || i > start {
			t.Errorf("%s does not come before start: %q", before, e.calls)
		}
	}
}

func TestRunSaysWhyAContainerDidNotStart(t *testing.T) {
	for _, row := range []struct {
		name, message string
		code          int
	}{
		{"a command that is not there is 127", `exec: "nope": executable file not found in $PATH`, 127},
		{"a missing interpreter is 127", "exec /x: no such file or directory", 127},
		{"a command that may not be run is 126", `exec: "/etc": permission denied`, 126},
		{"a directory is 126", `exec: "/etc": is a directory`, 126},
		{"another machine's program is 126", "exec /x: exec format error", 126},
		{"everything else is 125", "driver failed", 125},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := &oneContainer{startError: row.message}
			got := runCLI(t, serve(t, e.serve(t)), "", "run", "busybox", "nope")
			diff(t, "stderr", "WARNING: careful\ngantry: Error response from daemon: "+row.message+"\n\nRun 'gantry run --help' for more information\n", got.stderr)
			if got.exit != row.code {
				t.Errorf("exit %d, want %d", got.exit, row.code)
			}
		})
	}
}

func TestRunPullsAnImageThatIsMissing(t *testing.T) {
	var calls []string
	pulled := false
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, path, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v"), "/")
		calls = append(calls, path+"?"+r.URL.RawQuery)
		switch {
		case path == "images/create":
			pulled = true
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"status":"Pulling from library/x","id":"1"}`+"\n"+
				`{"status":"Downloading","progressDetail":{"current":5,"total":10},"id":"abc"}`+"\n"+
				`{"status":"Pull complete","progressDetail":{},"id":"abc"}`+"\n")
		case path == "containers/create" && !pulled:
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"message":"No such image: x:1"}`)
		case path == "containers/create":
			w.WriteHeader(http.StatusCreated)
			io.WriteString(w, `{"Id":"c1","Warnings":[]}`)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	got := runCLI(t, address, "", "run", "-d", "x:1")
	diff(t, "stdout", "c1\n", got.stdout)
	diff(t, "stderr", "Unable to find image 'x:1' locally\n1: Pulling from library/x\nabc: Pull complete\n", got.stderr)
	want := []string{"containers/create?", "images/create?fromImage=docker.io%2Flibrary%2Fx&tag=1", "containers/create?", "containers/c1/start?"}
	if !slices.Equal(calls, want) {
		t.Errorf("calls %q, want %q", calls, want)
	}
	got = runCLI(t, serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, `{"message":"No such image: x:1"}`)
	}), "", "run", "--pull", "never", "x:1")
	if got.exit != exitEngine {
		t.Errorf("exit %d with --pull never, want %d", got.exit, exitEngine)
	}
}

func TestNoEngine(t *testing.T) {
	for _, args := range [][]string{{"ps"}, {"run", "busybox"}} {
		got := runCLI(t, "unix:///nonexistent/engine.sock", "", args...)
		if !strings.Contains(got.stderr, "Cannot connect to the engine at unix:///nonexistent/engine.sock: no such file or directory.") {
			t.Errorf("%v: %s", args, got.stderr)
		}
	}
}

func TestContextsAndCredentials(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"Status":"Login Succeeded"}`)
	})
	for _, row := range []struct {
		stdin, args, stdout string
		exit                int
	}{
		{"", "context create side --docker host=unix:///a/b --description x", "side\n", 0},
		{"", "context create side --docker host=unix:///a/b", "", 1},
		{"", "context use side", "side\n", 0},
		{"", "context ls -q", "default\nside\n", 0},
		{"", "context inspect side --format {{.Endpoints.docker.Host}}", "unix:///a/b\n", 0},
		{"", "context rm side", "side\n", 0}, // DOCKER_HOST stands above it
		{"secret\n", "login -u me --password-stdin reg.example", "Login Succeeded\n", 0},
		{"", "login reg.example", "Login Succeeded\n", 0}, // with what is kept
		{"", "logout reg.example", "Removing login credentials for reg.example\n", 0},
		{"", "login reg.example", "", 1}, // nothing is kept, and nobody to ask
	} {
		got := runCLI(t, address, row.stdin, strings.Fields(row.args)...)
		if got.stdout != row.stdout || got.exit != row.exit {
			t.Errorf("%s: %q, exit %d (%s)", row.args, got.stdout, got.exit, got.stderr)
		}
	}
}

func TestEveryCommandHelps(t *testing.T) {
	var walk func(prefix []string, list []entry)
	walk = func(prefix []string, list []entry) {
		for _, e := range list {
			args := append(slices.Clone(prefix), e.name)
			got := runCLI(t, "unix:///nonexistent", "", append(slices.Clone(args), "--help")...)
			if got.exit != 0 || !strings.HasPrefix(got.stdout, "Usage:  gantry "+strings.Join(args, " ")) {
				t.Errorf("%v --help: exit %d\n%s%s", args, got.exit, got.stdout, got.stderr)
			}
			walk(args, e.sub)
		}
	}
	walk(nil, commands())
	for _, shell := range []string{"bash", "fish", "zsh"} {
		if got := runCLI(t, "unix:///nonexistent", "", "completion", shell); got.exit != 0 || !strings.Contains(got.stdout, "__complete") {
			t.Errorf("completion %s: exit %d", shell, got.exit)
		}
	}
	got := runCLI(t, "unix:///nonexistent", "", "__complete", "container", "re")
	if !strings.HasPrefix(got.stdout, "rename\t") || !strings.Contains(got.stdout, "\nrestart\t") {
		t.Errorf("complete container re: %s", got.stdout)
	}
}
