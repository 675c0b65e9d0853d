// Command record writes down what the stock docker CLI says to an engine, hears
// from it and prints, for the tests of package cli to hold gantry against.
//
//	cd cli && go run ./testdata/record -engine /run/docker.sock <testdata/answered.txt >testdata/answered.jsonl
//	cd cli && go run ./testdata/record <testdata/refused.txt >testdata/refused.jsonl
//
// state.sh makes what the first expects of the engine. Each line of the input is a command line. Without -engine every request is
// answered 500: enough to see what is sent.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// Exchange is one request and its answer.
type Exchange struct {
	Method string          `json:"method"`
	Path   string          `json:"path"`
	Query  url.Values      `json:"query,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Status int             `json:"status"`
	Type   string          `json:"type,omitempty"`
	Stat   string          `json:"stat,omitempty"` // X-Docker-Container-Path-Stat
	Answer string          `json:"answer,omitempty"`
}

// Record is one command line.
type Record struct {
	Args      []string   `json:"args"`
	Version   string     `json:"version"` // the engine's API
	Stdout    string     `json:"stdout,omitempty"`
	Stderr    string     `json:"stderr,omitempty"`
	Exit      int        `json:"exit"`
	Exchanges []Exchange `json:"exchanges"`
}

type recorder struct {
	next    http.Handler
	version string

	busy sync.WaitGroup

	mu   sync.Mutex
	seen []Exchange
}

var versionPrefix = regexp.MustCompile(`^/v1\.\d+`)

func (r *recorder) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.busy.Add(1)
	defer r.busy.Done()
	path := versionPrefix.ReplaceAllString(req.URL.Path, "")
	body, _ := io.ReadAll(req.Body)
	req.Body = io.NopCloser(bytes.NewReader(body))
	t := &tee{ResponseWriter: w, status: 200}
	r.next.ServeHTTP(t, req)
	if path == "/_ping" {
		if v := w.Header().Get("Api-Version"); v != "" {
			r.version = v
		}
		return
	}
	e := Exchange{
		Method: req.Method, Path: path, Query: req.URL.Query(), Status: t.status, Type: w.Header().Get("Content-Type"),
		Stat: w.Header().Get("X-Docker-Container-Path-Stat"), Answer: t.body.String(),
	}
	if json.Valid(body) {
		e.Body = body
	}
	r.mu.Lock()
	r.seen = append(r.seen, e)
	r.mu.Unlock()
}

type tee struct {
	http.ResponseWriter
	status int
	body   bytes.Buffer
}

func (t *tee) WriteHeader(status int) {
	t.status = status
	t.ResponseWriter.WriteHeader(status)
}

func (t *tee) Write(p []byte) (int, error) {
	t.body.Write(p)
	return t.ResponseWriter.Write(p)
}

func (t *tee) Flush() { t.ResponseWriter.(http.Flusher).Flush() }

func refuse(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Api-Version", "1.50")
	w.Header().Set("Ostype", "linux")
	if strings.HasSuffix(req.URL.Path, "/_ping") {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintln(w, `{"message":"refused"}`)
}

func main() {
	engine := flag.String("engine", "", "unix `socket` of a stock dockerd")
	docker := flag.String("docker", "docker", "the stock command line")
	flag.Parse()
	dir, err := os.MkdirTemp("", "record")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	r := &recorder{next: http.HandlerFunc(refuse)}
	if *engine != "" {
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: "engine"})
		proxy.FlushInterval = -1
		proxy.Transport = &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", *engine)
		}}
		r.next = proxy
	}
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		log.Fatal(err)
	}
	go http.Serve(l, r)
	cwd, err := os.Getwd()
	if err != nil {
		log.Fatal(err)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		args, err := split(lines.Text())
		if err != nil {
			log.Fatalf("%s: %v", lines.Text(), err)
		}
		if len(args) == 0 {
			continue
		}
		raw, err := json.Marshal(r.record(*docker, socket, dir, args))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(strings.ReplaceAll(string(raw), cwd, "$PWD"))
	}
}

func (r *recorder) record(docker, socket, dir string, args []string) Record {
	r.seen = nil
	cmd := exec.Command(docker, args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+socket, "DOCKER_CONFIG="+dir, "C=fromenv", "DOCKER_CLI_HINTS=false")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	r.busy.Wait() // the client may be gone before the proxy has noted its answer
	rec := Record{Args: args, Version: r.version, Stdout: out.String(), Stderr: errs.String(), Exchanges: r.seen}
	if x, ok := errors.AsType[*exec.ExitError](err); ok {
		rec.Exit = x.ExitCode()
	} else if err != nil {
		log.Fatal(err)
	}
	return rec
}

// split reads words; what is between quotes is taken as it is.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, open := rune(0), false
	for _, c := range line {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(c)
		case c == '"' || c == '\'':
			quote, open = c, true
		case c == ' ':
			if open {
				words, open = append(words, word.String()), false
				word.Reset()
			}
		default:
			open = true
			word.WriteRune(c)
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}
