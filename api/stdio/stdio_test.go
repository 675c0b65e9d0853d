package stdio

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestALoggerSurvivesItsURIAndItsArguments(t *testing.T) {
	for _, row := range []struct {
		name string
		l    Logger
	}{
		{"a log alone", Logger{Log: "/var/log/a b&c=d%/x.log"}},
		{"everything", Logger{
			Driver: CRI, Log: "/l", MaxSize: 5, MaxFile: 2, Attach: "/a?b", Stdin: true, TTY: true,
			Fifos: Fifos{"/0", "/1", "/2"},
		}},
		{"no limit", Logger{Driver: JSONFile, Log: "/l", MaxSize: -1}},
	} {
		t.Run(row.name, func(t *testing.T) {
			got, err := ParseArgs(row.l.Args())
			if err != nil || !reflect.DeepEqual(got, row.l) {
				t.Errorf("by arguments %+v, %v", got, err)
			}
			row.l.Binary = "/usr/local/bin/containerd-shim-gantry-v2"
			got, err = ParseLogger(row.l.URI())
			if err != nil || !reflect.DeepEqual(got, row.l) {
				t.Errorf("by URI %+v, %v", got, err)
			}
		})
	}
}

func TestALoggerThatIsWrongIsRefused(t *testing.T) {
	for _, row := range []struct{ name, uri, want string }{
		{"another scheme", "file:///x", "want binary:///PATH"},
		{"no path", "binary://?log=/x", "want binary:///PATH"},
		{"an unknown driver", "binary:///x?driver=syslog", `driver "syslog": want json-file, cri or none`},
		{"an unknown word", "binary:///x?colour=red", `unknown key "colour"`},
		{"no number", "binary:///x?max-size=10m", `max-size "10m": want a number`},
	} {
		t.Run(row.name, func(t *testing.T) {
			if _, err := ParseLogger(row.uri); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("the error is %v, want %q in it", err, row.want)
			}
		})
	}
}

func FuzzARecordIsWhatJSONMakesOfIt(f *testing.F) {
	f.Add([]byte("plain"), true)
	f.Add([]byte("\x00\x1f\"\\\r\n\t<>&\u2028\u2029\xff\xc3(é"), false)
	for c := range 256 { // each byte at each place of a word
		for at := range 8 {
			line := []byte("a line of 24 plain bytes")
			line[8+at] = byte(c)
			f.Add(line, true)
		}
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 67, time.UTC)
	f.Fuzz(func(t *testing.T, line []byte, whole bool) {
		got := AppendRecord(nil, line, whole, "stdout", at.Format(TimeFormat))
		r, err := ParseRecord(got)
		if err != nil {
			t.Fatalf("%v: %q", err, got)
		}
		// As encoding/json reads any string: what is no UTF-8 becomes U+FFFD.
		var want string
		b, err := json.Marshal(string(line))
		if err == nil {
			err = json.Unmarshal(b, &want)
		}
		if err != nil {
			t.Fatal(err)
		}
		if whole {
			want += "\n"
		}
		if r.Log != want || r.Stream != "stdout" || !r.Time.Equal(at) {
			t.Errorf("record of %q is %+v", line, r)
		}
	})
}

func TestListenReplacesASocketThatIsLeftBehind(t *testing.T) {
	path := filepath.Join(t.TempDir(), strings.Repeat("d", 100), "s")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	first, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("while somebody listens the error is %v", err)
	}
	first.Close()
	second, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("a file that is no socket is replaced")
	}
}
