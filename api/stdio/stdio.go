// Package stdio is the wire contract for a container's standard streams: where
// the shim writes the log, and how any number of clients attach.
//
// # The logger URI
//
// The engine asks for logs and attach with containerd's own words, a
// "binary://" URI as stdout and stderr of tasks.Create:
//
//	binary:///usr/local/bin/containerd-shim-gantry-v2?log=/…/ID-json.log&attach=/run/gantry/a/ID
//
// A stock shim runs that binary as its logger, with the container's stdout and
// stderr as descriptors 3 and 4 and a pipe to close when ready as 5 (containerd
// runtime v2 README, "Logging"). containerd-shim-gantry-v2, when the URI names
// itself, does the same work in its own process. One URI, one code, both shims.
//
// # The attach socket
//
// A unix stream socket. The client sends one line, a Hello in JSON, and then raw
// bytes for the container's stdin, if it asked for stdin; shutdown(SHUT_WR) is
// the end of stdin where Hello.CloseStdin says so. The server answers with
// "ok\n" or "error TEXT\n", and then frames in the form of Docker's multiplexed
// stream (Engine API, "Stream format"):
//
//	byte 0: stream (1 stdout, 2 stderr)   bytes 1-3: zero   bytes 4-7: length, big endian
//
// for a container without a terminal, and raw bytes for one with. End of file
// means that every byte that the container wrote has been delivered.
//
// A slow client blocks neither the container nor another client, and loses
// nothing: what its socket does not take is kept for it by the server, in
// memory up to a bound and then in an unlinked file.
package stdio

import (
	"fmt"
	"net/url"
	"strconv"
)

// Stream numbers of a frame header.
const (
	Stdin  byte = 0
	Stdout byte = 1
	Stderr byte = 2
)

// FrameHeaderLen is the length of a frame header in bytes.
const FrameHeaderLen = 8

// Hello is the first line that an attach client sends.
type Hello struct {
	Stdin      bool `json:"stdin,omitempty"`
	Stdout     bool `json:"stdout,omitempty"`
	Stderr     bool `json:"stderr,omitempty"`
	CloseStdin bool `json:"closeStdin,omitempty"` // end of this client's stdin closes the container's
}

// Logger is what a logger URI says.
type Logger struct {
	Binary string // absolute path of the logger program
	// Driver is "json-file" (Docker's format), "cri" (Kubernetes' format) or
	// "none" (attach only).
	Driver  string
	Log     string // path of the log file; rotated files are Log.1, Log.2, …
	MaxSize int64  // bytes of one file; 0 is no limit
	MaxFile int    // number of files, the live one included; 0 and 1 both keep one
	Attach  string // path of the attach socket; empty is none
	Stdin   bool   // the container has stdin, fed by attach clients
	TTY     bool
}

// URI renders l as the stdout and stderr of tasks.Create.
func (l Logger) URI() string {
	q := url.Values{}
	set := func(k, v string, ok bool) {
		if ok {
			q.Set(k, v)
		}
	}
	set("driver", l.Driver, l.Driver != "")
	set("log", l.Log, l.Log != "")
	set("max-size", strconv.FormatInt(l.MaxSize, 10), l.MaxSize != 0)
	set("max-file", strconv.Itoa(l.MaxFile), l.MaxFile != 0)
	set("attach", l.Attach, l.Attach != "")
	set("stdin", "1", l.Stdin)
	set("tty", "1", l.TTY)
	return (&url.URL{Scheme: "binary", Path: l.Binary, RawQuery: q.Encode()}).String()
}

// ParseLogger reads a logger URI.
func ParseLogger(uri string) (Logger, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return Logger{}, fmt.Errorf("parse logger URI: %w", err)
	}
	if u.Scheme != "binary" || u.Path == "" {
		return Logger{}, fmt.Errorf("parse logger URI %q: want binary:///PATH?…", uri)
	}
	q := u.Query()
	l := Logger{
		Binary: u.Path,
		Driver: q.Get("driver"),
		Log:    q.Get("log"),
		Attach: q.Get("attach"),
		Stdin:  q.Get("stdin") == "1",
		TTY:    q.Get("tty") == "1",
	}
	if s := q.Get("max-size"); s != "" {
		if l.MaxSize, err = strconv.ParseInt(s, 10, 64); err != nil {
			return Logger{}, fmt.Errorf("parse logger URI: max-size %q: %w", s, err)
		}
	}
	if s := q.Get("max-file"); s != "" {
		if l.MaxFile, err = strconv.Atoi(s); err != nil {
			return Logger{}, fmt.Errorf("parse logger URI: max-file %q: %w", s, err)
		}
	}
	return l, nil
}
