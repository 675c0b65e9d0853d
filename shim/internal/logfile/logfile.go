// Package logfile writes a container's log, in Docker's json-file form with
// rotation, or in Kubernetes' CRI form.
package logfile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/gantryd/gantry/api/stdio"
)

// bufSize is how much is written at once while output is fast, in bytes.
const bufSize = 64 << 10

// Log is one log file, fed by several streams.
type Log struct {
	path    string
	append  format
	maxSize int64 // not positive is no limit
	maxFile int

	mu     sync.Mutex
	file   *os.File
	size   int64  // of file: what was written whole
	buf    []byte // records that are not written yet; nil when drained
	lost   bool   // the last write failed; said once
	closed bool
}

// format encodes a record behind b; whole says that the line ended in a newline.
type format func(b, line []byte, whole bool, stream, at string) []byte

// Open opens the log that l names for appending; it is made, with mode 0640, if
// it is not there.
func Open(l stdio.Logger) (*Log, error) {
	log := newLog(l)
	if err := log.open(); err != nil {
		return nil, err
	}
	return log, nil
}

func newLog(l stdio.Logger) *Log {
	log := &Log{
		path:    l.Log,
		append:  stdio.AppendRecord,
		maxSize: cmp.Or(l.MaxSize, stdio.DefaultMaxSize),
		maxFile: cmp.Or(l.MaxFile, stdio.DefaultMaxFile),
	}
	if l.Driver == stdio.CRI {
		log.append, log.maxSize = appendCRI, -1
	}
	return log
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	return l.use(f)
}

// use has l write to f, which is closed where that fails.
func (l *Log) use(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	l.file, l.size = f, st.Size()
	return nil
}

// Flush writes what is buffered, and lets go of the buffer.
func (l *Log) Flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.flush()
	l.buf = nil
}

// Close flushes and closes.
func (l *Log) Close() error {
	l.Flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	return l.file.Close()
}

// put adds one record. The caller holds l.mu.
func (l *Log) put(line []byte, whole bool, stream, at string) {
	if l.maxSize > 0 && l.size+int64(len(l.buf)) >= l.maxSize {
		l.flush()
		if err := l.rotate(); err != nil {
			slog.Error("log is not rotated", "err", err)
		}
	}
	if l.buf == nil {
		l.buf = make([]byte, 0, min(bufSize, 2*len(line)+256))
	}
	l.buf = l.append(l.buf, line, whole, stream, at)
	if len(l.buf) >= bufSize {
		l.flush()
	}
}

// flush writes the buffer whole or not at all: a record that was cut short by a
// full disk would spoil the one after it.
func (l *Log) flush() {
	if len(l.buf) == 0 {
		return
	}
	n, err := l.file.Write(l.buf)
	if err == nil {
		l.size += int64(n)
	} else {
		err = errors.Join(err, l.unwrite(n))
		if !l.lost {
			slog.Error("output is lost", "err", err)
		}
	}
	l.lost = err != nil
	l.buf = l.buf[:0]
}

// unwrite takes the last n bytes off the file. Its end is where the last write
// left it, whatever somebody else cut off before.
func (l *Log) unwrite(n int) error {
	end, err := l.file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	return l.file.Truncate(end - int64(n))
}

// rotate renames the log to .1, .1 to .2 and so on, and begins a new one. With
// one file the old one is unlinked, so that a reader sees a new inode then too.
func (l *Log) rotate() error {
	last := max(l.maxFile, 1) - 1
	if last == 0 {
		if err := os.Remove(l.path); err != nil {
			return err
		}
	}
	for i := last; i > 0; i-- {
		err := os.Rename(l.numbered(i-1), l.numbered(i))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	return old.Close()
}

func (l *Log) numbered(i int) string {
	if i == 0 {
		return l.path
	}
	return l.path + "." + strconv.Itoa(i)
}

// Reopen closes the file and opens the path again, for who renamed it.
func (l *Log) Reopen() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	l.flush()
	old := l.file
	if err := l.open(); err != nil {
		return err
	}
	return old.Close()
}

// Stream cuts one stream of the container into lines. It is a stream.Sink.
type Stream struct {
	log     *Log
	name    string
	partial []byte // a line whose end has not come yet
	since   string // when the first record of that line came
}

// Stream is the part of the log for one stream, "stdout" or "stderr".
func (l *Log) Stream(name string) *Stream { return &Stream{log: l, name: name} }

// Write logs p. Lines without an end yet are kept until it comes.
func (s *Stream) Write(p []byte) {
	at := time.Now().UTC().Format(stdio.TimeFormat)
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	for len(p) > 0 {
		room := stdio.MaxLine - len(s.partial)
		head := p[:min(len(p), room)]
		i := bytes.IndexByte(head, '\n')
		switch {
		case i >= 0:
			s.emit(p[:i], true, at)
			p = p[i+1:]
		case len(head) == room:
			s.emit(head, false, at)
			p = p[room:]
		default:
			s.keep(p, at)
			return
		}
	}
}

// emit logs the kept part and tail as one record.
func (s *Stream) emit(tail []byte, whole bool, at string) {
	if s.since != "" {
		at = s.since // records of one line have one time
	}
	line := tail
	if len(s.partial) > 0 {
		line = append(s.partial, tail...)
		s.partial = nil
	}
	s.log.put(line, whole, s.name, at)
	if s.since = ""; !whole {
		s.since = at
	}
}

func (s *Stream) keep(p []byte, at string) {
	s.partial = append(s.partial, p...)
	if s.since == "" {
		s.since = at
	}
}

// Drained writes the log out.
func (s *Stream) Drained() { s.log.Flush() }

// End logs a last line that had no newline.
func (s *Stream) End() {
	s.log.mu.Lock()
	if len(s.partial) > 0 {
		s.emit(nil, false, s.since)
	}
	s.log.mu.Unlock()
	s.log.Flush()
}

// appendCRI is the form of Kubernetes: TIME STREAM P|F LINE. P says that the
// line goes on in the next record (CRI, "Log format").
func appendCRI(b, line []byte, whole bool, stream, at string) []byte {
	b = append(b, at...)
	b = append(b, ' ')
	b = append(b, stream...)
	if whole {
		b = append(b, " F "...)
	} else {
		b = append(b, " P "...)
	}
	b = append(b, line...)
	return append(b, '\n')
}
