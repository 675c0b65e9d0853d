package stdio

import (
	"fmt"
	"net/url"
	"strconv"
)

// The drivers of a Logger.
const (
	JSONFile = "json-file" // Docker's format, with rotation
	CRI      = "cri"       // Kubernetes' format
	None     = "none"      // attach only
)

// What a json-file log may take on the disk unless the URI says otherwise.
const (
	DefaultMaxSize = 20_000_000
	DefaultMaxFile = 3
)

// Logger is what a logger URI says.
type Logger struct {
	Binary  string // absolute path of the logger program
	Driver  string // JSONFile, CRI or None; empty is JSONFile where Log is set, else None
	Log     string // path of the log file; rotated files are Log.1, Log.2, …
	MaxSize int64  // bytes of one file; 0 is DefaultMaxSize, negative is no limit; CRI has none
	MaxFile int    // number of files, the live one included; 0 is DefaultMaxFile
	Attach  string // path of the attach socket; empty is none
	Stdin   bool   // the container has stdin, fed by attach clients
	TTY     bool
	Fifos   Fifos // only where the engine starts the logger itself, under a foreign shim
}

// Fifos are paths of named pipes that a foreign shim was given as streams; an
// empty one is absent.
type Fifos struct {
	Stdin  string
	Stdout string
	Stderr string
}

// pair is one word of a logger URI and its value.
type pair struct{ key, value string }

// pairs has the words whose value is not zero.
func (l Logger) pairs() []pair {
	all := []pair{
		{"driver", l.Driver},
		{"log", l.Log},
		{"max-size", number(l.MaxSize)},
		{"max-file", number(int64(l.MaxFile))},
		{"attach", l.Attach},
		{"stdin", yes(l.Stdin)},
		{"tty", yes(l.TTY)},
		{"fifo-stdin", l.Fifos.Stdin},
		{"fifo-stdout", l.Fifos.Stdout},
		{"fifo-stderr", l.Fifos.Stderr},
	}
	set := all[:0]
	for _, p := range all {
		if p.value != "" {
			set = append(set, p)
		}
	}
	return set
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func yes(b bool) string {
	if b {
		return "1"
	}
	return ""
}

// URI renders l as the stdout and stderr of tasks.Create.
func (l Logger) URI() string {
	q := url.Values{}
	for _, p := range l.pairs() {
		q.Set(p.key, p.value)
	}
	return (&url.URL{Scheme: "binary", Path: l.Binary, RawQuery: q.Encode()}).String()
}

// Args renders l as the arguments of its binary: "key value key value …", as a
// foreign shim does with the URI. With Fifos set, whoever runs the binary so gets
// it back, with status 0, as soon as the fifos are open and the attach socket
// listens; the logger itself goes on on its own until the fifos have ended.
func (l Logger) Args() []string {
	var args []string
	for _, p := range l.pairs() {
		args = append(args, p.key, p.value)
	}
	return args
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
	l := Logger{Binary: u.Path}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Logger{}, fmt.Errorf("parse logger URI: %w", err)
	}
	for k, v := range q {
		if err := l.set(k, v[0]); err != nil {
			return Logger{}, fmt.Errorf("parse logger URI: %w", err)
		}
	}
	return l, nil
}

// ParseArgs reads the arguments of a logger program.
func ParseArgs(args []string) (Logger, error) {
	var l Logger
	for ; len(args) >= 2; args = args[2:] {
		if err := l.set(args[0], args[1]); err != nil {
			return Logger{}, fmt.Errorf("parse logger arguments: %w", err)
		}
	}
	if len(args) == 1 {
		return Logger{}, fmt.Errorf("parse logger arguments: %q has no value", args[0])
	}
	return l, nil
}

func (l *Logger) set(key, value string) (err error) {
	switch key {
	case "driver":
		if value != JSONFile && value != CRI && value != None {
			return fmt.Errorf("driver %q: want %s, %s or %s", value, JSONFile, CRI, None)
		}
		l.Driver = value
	case "log":
		l.Log = value
	case "max-size":
		l.MaxSize, err = strconv.ParseInt(value, 10, 64)
	case "max-file":
		l.MaxFile, err = strconv.Atoi(value)
	case "attach":
		l.Attach = value
	case "stdin":
		l.Stdin = value == "1"
	case "tty":
		l.TTY = value == "1"
	case "fifo-stdin":
		l.Fifos.Stdin = value
	case "fifo-stdout":
		l.Fifos.Stdout = value
	case "fifo-stderr":
		l.Fifos.Stderr = value
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	if err != nil {
		return fmt.Errorf("%s %q: want a number", key, value)
	}
	return nil
}
