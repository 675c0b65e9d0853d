package jsonlog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantryd/gantry/api/stdio"
)

// begin is the time of line 0; line i comes i seconds later.
var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func line(i int, stream string) []byte {
	at := begin.Add(time.Duration(i) * time.Second).Format(stdio.TimeFormat)
	return stdio.AppendRecord(nil, fmt.Appendf(nil, "line %d", i), true, stream, at)
}

// write appends the lines from to to-1; odd ones are of stderr.
func write(t *testing.T, path string, from, to int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for i := from; i < to; i++ {
		if _, err := f.Write(line(i, []string{"stdout", "stderr"}[i%2])); err != nil {
			t.Fatal(err)
		}
	}
}

// rotate does what the logger does when the live file is full.
func rotate(t *testing.T, path string, files int) {
	t.Helper()
	for i := files - 1; i > 1; i-- {
		os.Rename(fmt.Sprint(path, ".", i-1), fmt.Sprint(path, ".", i))
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
}

func numbers(from, to, step int) (want []string) {
	for i := from; i < to; i += step {
		want = append(want, fmt.Sprintf("line %d\n", i))
	}
	return want
}

func TestReadGivesWhatIsAskedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	write(t, path, 0, 40)
	rotate(t, path, 3)
	write(t, path, 40, 70)
	rotate(t, path, 3)
	write(t, path, 70, 100)
	// The logger was killed in the middle of a record.
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"log":"cut`)
	f.Close()

	both := Options{Tail: -1, Stdout: true, Stderr: true}
	with := func(f func(o *Options)) Options { o := both; f(&o); return o }
	for _, row := range []struct {
		name string
		o    Options
		want []string
	}{
		{"everything, the oldest file first", both, numbers(0, 100, 1)},
		{"one stream alone", with(func(o *Options) { o.Stderr = false }), numbers(0, 100, 2)},
		{"the last lines of the live file", with(func(o *Options) { o.Tail = 5 }), numbers(95, 100, 1)},
		{"the last lines across files", with(func(o *Options) { o.Tail = 65 }), numbers(35, 100, 1)},
		{"more last lines than there are", with(func(o *Options) { o.Tail = 1000 }), numbers(0, 100, 1)},
		{"the last lines of one stream", with(func(o *Options) { o.Tail, o.Stdout = 3, false }), []string{"line 95\n", "line 97\n", "line 99\n"}},
		{"no last line at all", with(func(o *Options) { o.Tail = 0 }), nil},
		{"what came since a time", with(func(o *Options) { o.Since = begin.Add(90 * time.Second) }), numbers(90, 100, 1)},
		{"what came until a time", with(func(o *Options) { o.Until = begin.Add(10 * time.Second) }), numbers(0, 11, 1)},
		{"the last lines until a time", with(func(o *Options) { o.Until, o.Tail = begin.Add(10*time.Second), 2 }), numbers(9, 11, 1)},
	} {
		t.Run(row.name, func(t *testing.T) {
			var got []string
			err := Read(t.Context(), path, row.o, func(r stdio.Record) error { got = append(got, r.Log); return nil })
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got %d lines %.60q…, want %d %.60q…", len(got), strings.Join(got, ""), len(row.want), strings.Join(row.want, ""))
			}
		})
	}
}

func TestALogThatIsNotThereIsEmpty(t *testing.T) {
	err := Read(t.Context(), filepath.Join(t.TempDir(), "none"), Options{Tail: -1, Stdout: true}, func(stdio.Record) error {
		t.Error("a record")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestFollowLosesNothingAcrossRotations(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	write(t, path, 0, 10)
	ended := make(chan struct{})
	got := make(chan string, 10000)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	result := make(chan error, 1)
	go func() {
		o := Options{Tail: 5, Stdout: true, Stderr: true, Follow: true, Ended: ended}
		result <- Read(ctx, path, o, func(r stdio.Record) error { got <- r.Log; return nil })
		close(got)
	}()
	if first := <-got; first != "line 5\n" {
		t.Fatalf("first line %q, want line 5", first)
	}
	for i := 10; i < 1000; i += 10 {
		write(t, path, i, i+10)
		if i%50 == 0 {
			rotate(t, path, 9)
			time.Sleep(2 * time.Millisecond)
		}
	}
	close(ended)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	n := 6
	for l := range got {
		if want := fmt.Sprintf("line %d\n", n); l != want {
			t.Fatalf("got %q, want %q", l, want)
		}
		n++
	}
	if n != 1000 {
		t.Errorf("ended at line %d, want 1000", n)
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	write(t, path, 0, 1)
	ctx, cancel := context.WithCancel(t.Context())
	err := Read(ctx, path, Options{Tail: -1, Stdout: true, Follow: true}, func(stdio.Record) error { cancel(); return nil })
	if err != context.Canceled {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
