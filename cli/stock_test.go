package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// record is one command line of the stock docker CLI 28.2.2, what it asked an
// engine, what it was answered and what it printed: testdata/record makes them.
type record struct {
	Args      []string
	Version   string // the engine's API
	Stdout    string
	Stderr    string
	Exit      int
	Exchanges []*exchange
}

type exchange struct {
	Method, Path string
	Query        url.Values
	Body         json.RawMessage
	Status       int
	Type         string
	Stat         string
	Answer       string

	used bool
}

func readRecords(t *testing.T, name string) []record {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	cwd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	data = bytes.ReplaceAll(data, []byte("$PWD"), []byte(cwd))
	var list []record
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r record
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestAsStock holds gantry against the stock docker CLI: the same requests, the
// same output and the same exit code for the same answers.
func TestAsStock(t *testing.T) {
	for _, file := range []string{"refused.jsonl", "answered.jsonl"} {
		for _, r := range readRecords(t, file) {
			t.Run(file+"/"+strings.Join(r.Args, " "), func(t *testing.T) {
				t.Setenv("C", "fromenv")
				e := startReplay(t, &r)
				got := runCLI(t, e.address, "", r.Args...)
				e.compare(t, &r)
				line := strings.Join(r.Args, " ")
				if why, ok := ownWords[line]; ok {
					if asGantry(r.Stdout+r.Stderr) == normal(got.stdout+got.stderr) {
						t.Errorf("no difference any more: %s", why)
					}
				} else {
					diff(t, "stdout", asGantry(r.Stdout), normal(got.stdout))
					diff(t, "stderr", asGantry(r.Stderr), normal(got.stderr))
				}
				want := r.Exit
				if code, ok := ownExit[line]; ok {
					want = code
				}
				if got.exit != want {
					t.Errorf("exit %d, want %d", got.exit, want)
				}
			})
		}
	}
}

// ownWords are command lines where Gantry's words differ on purpose.
var ownWords = map[string]string{
	"volume create a b": "docker says \"SRun 'docker volume\"",
}

// ownExit are command lines where Gantry's exit code differs on purpose.
var ownExit = map[string]int{}

// skipped are requests of docker that gantry does not need: swarm and plugins are
// none of its nouns, and a DELETE says itself whether there was something.
func skipped(e *exchange, args []string) bool {
	switch args[0] {
	case "inspect":
		return e.Path == "/info" || strings.HasPrefix(e.Path, "/plugins/")
	case "exec":
		return e.Method == http.MethodGet && e.Path == "/containers/"+args[1]+"/json"
	case "network":
		return args[1] == "rm" && e.Method == http.MethodGet
	}
	return false
}

var (
	ago      = regexp.MustCompile(`(Less than a|About an?|[0-9]+) (second|minute|hour|day|week|month|year)s?( ago)?`)
	program  = regexp.MustCompile(`(^|[\n'\t ])docker(: | [a-z]+| --help)`)
	contexts = regexp.MustCompile(`/[^ ]*/contexts/`)
	tripleSp = regexp.MustCompile(` {3,}`)
)

// normal takes the time that has passed out of a text, and what it does to the
// width of columns.
func normal(s string) string {
	s = contexts.ReplaceAllString(s, "DIR/contexts/")
	if !ago.MatchString(s) {
		return s
	}
	return tripleSp.ReplaceAllString(ago.ReplaceAllString(s, "AGO"), "   ")
}

// asGantry is docker's text in the words of a program with another name.
func asGantry(s string) string {
	return normal(program.ReplaceAllString(s, "${1}gantry$2"))
}

func diff(t *testing.T, what, want, got string) {
	t.Helper()
	if want != got {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

type result struct {
	stdout, stderr string
	exit           int
}

// runCLI runs one command line against the engine at address.
func runCLI(t *testing.T, address, stdin string, args ...string) result {
	t.Helper()
	t.Setenv("DOCKER_HOST", address)
	if os.Getenv("DOCKER_CONFIG") == "" {
		t.Setenv("DOCKER_CONFIG", t.TempDir())
	}
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	code := Main(ctx, args, Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs}, time.Now())
	return result{out.String(), errs.String(), code}
}

// serve makes an engine of handler, on a socket.
func serve(t *testing.T, handler http.HandlerFunc) (address string) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
	s.Start()
	t.Cleanup(s.Close)
	return "unix://" + socket
}

// replay is an engine that knows one record.
type replay struct {
	address string
	version string

	mu       sync.Mutex
	recorded []*exchange
	got      []*exchange
}

func startReplay(t *testing.T, r *record) *replay {
	e := &replay{version: r.Version, recorded: r.Exchanges}
	e.address = serve(t, e.answer)
	return e
}

var apiVersion = regexp.MustCompile(`^/v1\.(\d+)`)

func (e *replay) answer(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Api-Version", e.version)
	path := req.URL.Path
	if path == "/_ping" {
		return
	}
	if m := apiVersion.FindStringSubmatch(path); m != nil {
		path = strings.TrimPrefix(path, m[0])
		if v := "1." + m[1]; v > e.version {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `{"message":"client version %s is too new. Maximum supported API version is %s"}`, v, e.version)
			return
		}
	}
	got := &exchange{Method: req.Method, Path: path, Query: req.URL.Query()}
	if body, err := io.ReadAll(req.Body); err == nil && json.Valid(body) {
		got.Body = body
	}
	e.mu.Lock()
	e.got = append(e.got, got)
	found := e.find(got)
	e.mu.Unlock()
	if found == nil {
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, `{"message":"docker did not ask for %s %s"}`, got.Method, path)
		return
	}
	w.Header().Set("Content-Type", found.Type)
	if found.Stat != "" {
		w.Header().Set("X-Docker-Container-Path-Stat", found.Stat)
	}
	w.WriteHeader(found.Status)
	io.WriteString(w, found.Answer)
}

// find is the first exchange that fits and was not used.
func (e *replay) find(got *exchange) *exchange {
	for _, x := range e.recorded {
		if !x.used && x.Method == got.Method && x.Path == got.Path {
			x.used = true
			return x
		}
	}
	return nil
}

// compare holds the requests that came against those that docker sent.
func (e *replay) compare(t *testing.T, r *record) {
	t.Helper()
	e.mu.Lock()
	defer e.mu.Unlock()
	var want []*exchange
	for _, x := range e.recorded {
		if x.used || !skipped(x, r.Args) {
			want = append(want, x)
		}
	}
	if r.Args[0] == "attach" {
		// Sent first, and not waited for where there is nothing to attach to.
		isWait := func(x *exchange) bool { return strings.HasSuffix(x.Path, "/wait") }
		want, e.got = slices.DeleteFunc(want, isWait), slices.DeleteFunc(e.got, isWait)
	}
	if len(want) != len(e.got) {
		t.Errorf("sent %d requests, want %d: %s", len(e.got), len(want), show(want))
		return
	}
	if r.Args[0] == "rm" { // several at once
		for _, list := range [][]*exchange{want, e.got} {
			slices.SortFunc(list, func(a, b *exchange) int { return strings.Compare(a.Path, b.Path) })
		}
	}
	for i := range want {
		w, g := want[i], e.got[i]
		if w.Method != g.Method || w.Path != g.Path {
			t.Errorf("request %d is %s %s, want %s %s", i, g.Method, g.Path, w.Method, w.Path)
		}
		if a, b := queryOf(w), queryOf(g); !reflect.DeepEqual(a, b) {
			t.Errorf("%s %s: query %v, want %v", g.Method, g.Path, b, a)
		}
		if (len(w.Body) == 0) != (len(g.Body) == 0) {
			t.Errorf("%s %s: body %q, want %q", g.Method, g.Path, g.Body, w.Body) // to an engine, {} is not nothing
		}
		if a, b := bodyOf(t, w), bodyOf(t, g); !reflect.DeepEqual(a, b) {
			t.Errorf("%s %s: body\n%v\nwant\n%v", g.Method, g.Path, b, a)
		}
	}
}

func show(list []*exchange) string {
	var b strings.Builder
	for _, x := range list {
		fmt.Fprintf(&b, "\n%s %s", x.Method, x.Path)
	}
	return b.String()
}

// queryOf is a query without parameters that say nothing, and with filters as
// JSON: the order in a map means nothing.
func queryOf(e *exchange) map[string]any {
	m := map[string]any{}
	for k, v := range e.Query {
		var decoded any
		switch {
		case len(v) == 1 && v[0] == "":
		case len(v) == 1 && json.Unmarshal([]byte(v[0]), &decoded) == nil:
			m[k] = decoded
		default:
			m[k] = v
		}
	}
	return m
}

// bodyOf is a body without what is null or empty: for an engine that is the same
// as absent.
func bodyOf(t *testing.T, e *exchange) any {
	if len(e.Body) == 0 {
		return nil
	}
	var v any
	if err := json.Unmarshal(e.Body, &v); err != nil {
		t.Fatal(err)
	}
	if m, ok := v.(map[string]any); ok && strings.HasSuffix(e.Path, "/exec") {
		delete(m, "Detach") // it is said at the start; API 1.42 dropped it here
	}
	return withoutEmpty(v)
}

func withoutEmpty(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			if v[k] = withoutEmpty(v[k]); v[k] == nil {
				delete(v, k)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		if len(v) == 0 {
			return nil
		}
		for i := range v {
			v[i] = withoutEmpty(v[i])
		}
	}
	return v
}
