package logfile

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/api/stdio"
)

func open(t *testing.T, with func(*stdio.Logger)) (*Log, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	l := stdio.Logger{Driver: stdio.JSONFile, Log: path}
	if with != nil {
		with(&l)
	}
	log, err := Open(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log, path
}

// records reads a json-file.
func records(t *testing.T, path string) (all []stdio.Record) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		r, err := stdio.ParseRecord(line)
		if err != nil {
			t.Fatalf("%v: %.200q", err, line)
		}
		all = append(all, r)
	}
	return all
}

func TestLinesAreRecords(t *testing.T) {
	long := strings.Repeat("x", stdio.MaxLine)
	for _, row := range []struct {
		name   string
		writes []string
		want   []string
	}{
		{"a line", []string{"a\n"}, []string{"a\n"}},
		{"lines in one write", []string{"a\n\nb\n"}, []string{"a\n", "\n", "b\n"}},
		{"a line torn between writes", []string{"a", "b", "c\nd", "\n"}, []string{"abc\n", "d\n"}},
		{"a last line without its end", []string{"a\nb"}, []string{"a\n", "b"}},
		{"a line of the longest length", []string{long + "\n"}, []string{long, "\n"}},
		{"a line that is too long", []string{long + "y\nz\n"}, []string{long, "y\n", "z\n"}},
		{"a line that is too long, torn", []string{long[:100], long[100:] + "y", "\n"}, []string{long, "y\n"}},
		{"bytes that are no text", []string{"\xff\x00\x1b[0m<&>\"\\\u2028é\n"}, []string{"\ufffd\x00\x1b[0m<&>\"\\\u2028é\n"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			log, path := open(t, nil)
			s := log.Stream("stdout")
			for _, w := range row.writes {
				s.Write([]byte(w))
			}
			s.End()
			var got []string
			for _, r := range records(t, path) {
				got = append(got, r.Log)
				if r.Stream != "stdout" || r.Time.IsZero() {
					t.Errorf("record is %+v", r)
				}
			}
			if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", row.want) {
				t.Errorf("records are %.300q, want %.300q", got, row.want)
			}
		})
	}
}

func TestStreamsAreTornApart(t *testing.T) {
	log, path := open(t, nil)
	out, errOut := log.Stream("stdout"), log.Stream("stderr")
	out.Write([]byte("one "))
	errOut.Write([]byte("ERR"))
	out.Write([]byte("line\n"))
	errOut.End()
	got := records(t, path)
	if len(got) != 2 || got[0].Log != "one line\n" || got[1].Log != "ERR" || got[1].Stream != "stderr" {
		t.Errorf("records are %+v", got)
	}
}

func TestCRIFormat(t *testing.T) {
	log, path := open(t, func(l *stdio.Logger) { l.Driver, l.MaxSize = stdio.CRI, 1 })
	s := log.Stream("stderr")
	s.Write([]byte(strings.Repeat("x", stdio.MaxLine) + "y\nz"))
	s.End()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(line, " ", 4)
		if len(f) != 4 || !strings.HasSuffix(f[0], "Z") {
			t.Fatalf("record is %.100q", line)
		}
		got = append(got, fmt.Sprint(f[1], " ", f[2], " ", len(f[3])))
	}
	want := []string{fmt.Sprint("stderr P ", stdio.MaxLine+1), "stderr F 2", "stderr P 2"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("records are %q, want %q", got, want)
	}
}

func TestRotationLosesNoLineOfTheFilesItKeeps(t *testing.T) {
	for _, files := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(files, " files"), func(t *testing.T) {
			const size = 10_000
			log, path := open(t, func(l *stdio.Logger) { l.MaxSize, l.MaxFile = size, files })
			s := log.Stream("stdout")
			r := rand.New(rand.NewPCG(1, 2))
			const lines = 3000
			var pending []byte
			for i := range lines {
				pending = fmt.Appendf(pending, "%d %s\n", i, strings.Repeat("x", r.IntN(80)))
				n := r.IntN(len(pending) + 1)
				s.Write(pending[:n])
				pending = pending[n:]
				if r.IntN(10) == 0 {
					s.Drained()
				}
			}
			s.Write(pending)
			s.End()
			next := -1
			for i := files - 1; i >= 0; i-- {
				st, err := os.Stat(log.numbered(i))
				if err != nil {
					t.Fatal(err)
				}
				if st.Size() > size+300 {
					t.Errorf("%s has %d bytes", st.Name(), st.Size())
				}
				for _, r := range records(t, log.numbered(i)) {
					var n int
					fmt.Sscan(r.Log, &n)
					if next >= 0 && n != next {
						t.Fatalf("line %d follows, want %d", n, next)
					}
					next = n + 1
				}
			}
			if next != lines {
				t.Errorf("the last line is %d, want %d", next-1, lines-1)
			}
			if left, _ := filepath.Glob(path + "*"); len(left) != files {
				t.Errorf("files are %v", left)
			}
		})
	}
}

func TestALogIsLimitedUnlessToldOtherwise(t *testing.T) {
	for _, row := range []struct {
		name  string
		size  int64
		limit bool
	}{
		{"nothing said", 0, true},
		{"no limit", -1, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			log, path := open(t, func(l *stdio.Logger) { l.MaxSize = row.size })
			s := log.Stream("stdout")
			line := []byte(strings.Repeat("x", 9_999) + "\n")
			for range 8 * stdio.DefaultMaxSize / len(line) / 2 {
				s.Write(line)
			}
			s.End()
			var total int64
			files, _ := filepath.Glob(path + "*")
			for _, f := range files {
				st, err := os.Stat(f)
				if err != nil {
					t.Fatal(err)
				}
				total += st.Size()
			}
			limit := int64(stdio.DefaultMaxFile * (stdio.DefaultMaxSize + 2*bufSize))
			if limited := total <= limit; limited != row.limit {
				t.Errorf("%d files have %d bytes", len(files), total)
			}
		})
	}
}

func TestReopenMakesTheFileAgain(t *testing.T) {
	log, path := open(t, func(l *stdio.Logger) { l.Driver = stdio.CRI })
	s := log.Stream("stdout")
	s.Write([]byte("before\nto"))
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}
	s.Write([]byte("rn\n"))
	s.End()
	for file, want := range map[string]string{path + ".old": "F before\n", path: "F torn\n"} {
		data, err := os.ReadFile(file)
		if err != nil || !strings.HasSuffix(string(data), want) || strings.Count(string(data), "\n") != 1 {
			t.Errorf("%s has %q, %v", file, data, err)
		}
	}
}

func TestAFullDiskLosesWholeRecordsOnly(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("mount a small tmpfs (this test needs root): %v", err)
	}
	defer unix.Unmount(dir, 0)
	path := filepath.Join(dir, "log")
	log, _ := open(t, func(l *stdio.Logger) { l.Log, l.MaxSize = path, -1 })
	s := log.Stream("stdout")
	for i := range 2000 {
		s.Write(fmt.Appendf(nil, "%d %s\n", i, strings.Repeat("x", 50)))
		s.Drained()
	}
	full := len(records(t, path))
	if full < 100 || full > 1000 {
		t.Fatalf("%d records fit", full)
	}
	if err := os.Truncate(path, 0); err != nil { // somebody makes room
		t.Fatal(err)
	}
	s.Write([]byte("again\n"))
	s.End()
	if got := records(t, path); len(got) != 1 || got[0].Log != "again\n" {
		t.Errorf("records are %+v", got)
	}
	log.Close()
}

func BenchmarkWrite(b *testing.B) {
	log, err := Open(stdio.Logger{Driver: stdio.JSONFile, Log: filepath.Join(b.TempDir(), "log")})
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	s := log.Stream("stdout")
	chunk := bytes.Repeat([]byte(strings.Repeat("x", 79)+"\n"), 64<<10/80)
	b.SetBytes(int64(len(chunk)))
	b.ReportAllocs()
	for b.Loop() {
		s.Write(chunk)
	}
}
