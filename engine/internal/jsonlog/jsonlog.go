// Package jsonlog reads the logs that api/stdio describes under json-file: a live
// file and the older ones that rotation left beside it, while somebody else
// writes and rotates them.
//
// It knows lines and times, and nothing of containers.
package jsonlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/gantryd/gantry/api/stdio"
)

// Options of Read. The zero value reads all that is there.
type Options struct {
	Since, Until   time.Time // the zero time is no bound
	Tail           int       // the last lines only; less than 0 is all
	Stdout, Stderr bool
	// Follow goes on until Ended is closed and all is read, or until Until.
	Follow bool
	Ended  <-chan struct{}
	// Idle, if set, is called when all is read and Follow waits for more.
	Idle func()
}

// maxRecord bounds one record in bytes: a line of stdio.MaxLine bytes of which
// each takes six in JSON, and its frame.
const maxRecord = 8 * stdio.MaxLine

// Read calls emit for each record of the log at path that o asks for, in the
// order of writing. A log that is not there is empty. It ends with emit's error,
// or ctx's.
func Read(ctx context.Context, path string, o Options, emit func(stdio.Record) error) error {
	r := &reader{path: path, opts: o, emit: emit}
	defer r.close()
	if o.Follow {
		w, err := watch(path)
		if err != nil {
			return err
		}
		defer w.close()
		r.watch = w
	}
	if err := r.past(ctx); err != nil || !o.Follow {
		return until(err)
	}
	return until(r.follow(ctx))
}

// errUntil says that a record is later than Until.
var errUntil = errors.New("later than asked for")

func until(err error) error {
	if errors.Is(err, errUntil) {
		return nil
	}
	return err
}

type reader struct {
	path  string
	opts  Options
	emit  func(stdio.Record) error
	watch *watcher

	file *os.File // the live file, read up to what is in buf
	buf  []byte   // the beginning of a record whose end is not written yet
}

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

// past reads what is there: the rotated files, the oldest first, and then the
// live one, which stays open. The files are opened before any is read, the oldest
// last, so that a rotation meanwhile hides none.
func (r *reader) past(ctx context.Context) error {
	if r.opts.Tail == 0 {
		return r.skipToEnd()
	}
	files, err := openAll(r.path)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files[min(1, len(files)):] {
			f.Close()
		}
	}()
	if len(files) > 0 {
		r.file = files[0]
	}
	if r.opts.Tail > 0 {
		return r.tail(ctx, files)
	}
	for i := len(files) - 1; i >= 0; i-- {
		if err := r.records(ctx, files[i], i == 0); err != nil {
			return err
		}
	}
	return nil
}

// skipToEnd is for a follower that wants nothing of the past.
func (r *reader) skipToEnd() error {
	f, err := os.Open(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	r.file = f
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	return nil
}

// openAll opens the live file and the rotated ones, the newest first. When a
// rotation came between, one file would be there twice: it is kept once.
func openAll(path string) (files []*os.File, err error) {
	for i := 0; ; i++ {
		name := path
		if i > 0 {
			name += "." + strconv.Itoa(i)
		}
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			if i == 0 { // between a rename and the next file, or no log at all
				continue
			}
			return files, nil
		}
		if err != nil {
			for _, f := range files {
				f.Close()
			}
			return nil, fmt.Errorf("open log: %w", err)
		}
		if len(files) > 0 && sameFile(files[len(files)-1], f) {
			f.Close()
			continue
		}
		files = append(files, f)
	}
}

func sameFile(a, b *os.File) bool {
	x, xerr := a.Stat()
	y, yerr := b.Stat()
	return xerr == nil && yerr == nil && os.SameFile(x, y)
}

// records reads f to its end. Of the live file, the beginning of a record that is
// not whole yet is kept.
func (r *reader) records(ctx context.Context, f *os.File, live bool) error {
	br := bufio.NewReaderSize(f, 64<<10)
	for {
		line, err := br.ReadSlice('\n')
		if err == nil && len(r.buf) == 0 {
			if err := r.record(line); err != nil {
				return err
			}
			continue
		}
		if len(r.buf)+len(line) > maxRecord {
			r.buf = r.buf[:0] // no record of ours: skip to the next line
		} else {
			r.buf = append(r.buf, line...)
		}
		switch {
		case err == nil:
			line := r.buf
			r.buf = nil
			if err := r.record(line); err != nil {
				return err
			}
		case errors.Is(err, io.EOF):
			if !live {
				r.buf = nil // a writer that was killed left half a record
			}
			return ctx.Err()
		case !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("read log: %w", err)
		}
	}
}

// record passes one record on, if it is asked for. One that is damaged (a power
// cut) is left out.
func (r *reader) record(line []byte) error {
	if len(bytes.TrimSpace(line)) == 0 {
		return nil
	}
	rec, err := stdio.ParseRecord(line)
	if err != nil {
		return nil
	}
	switch {
	case !r.opts.Until.IsZero() && rec.Time.After(r.opts.Until):
		return errUntil
	case rec.Time.Before(r.opts.Since):
		return nil
	case rec.Stream == "stdout" && !r.opts.Stdout, rec.Stream == "stderr" && !r.opts.Stderr:
		return nil
	}
	return r.emit(rec)
}

// follow reads what is written from now on.
func (r *reader) follow(ctx context.Context) error {
	var end <-chan time.Time
	if !r.opts.Until.IsZero() {
		timer := time.NewTimer(time.Until(r.opts.Until))
		defer timer.Stop()
		end = timer.C
	}
	ended := r.opts.Ended
	for last := false; ; {
		if err := r.more(ctx); err != nil {
			return err
		}
		if last {
			return nil
		}
		if r.opts.Idle != nil {
			r.opts.Idle()
		}
		select {
		case <-r.watch.changed:
		case <-ended:
			last = true // what was written before the end is read now
		case <-end:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// more reads on: the file that is open to its end, and those that took its place.
func (r *reader) more(ctx context.Context) error {
	for {
		next, err := r.rotated()
		if err != nil {
			return err
		}
		if r.file != nil {
			err = r.records(ctx, r.file, next == nil)
		}
		if next == nil {
			return err
		}
		for i := len(next) - 1; i >= 0 && err == nil; i-- {
			r.open(next[i])
			next = next[:i]
			if i > 0 {
				err = r.records(ctx, r.file, false)
			}
		}
		for _, f := range next {
			f.Close()
		}
		if err != nil {
			return err
		}
	}
}

// open goes on with f.
func (r *reader) open(f *os.File) {
	r.close()
	r.file, r.buf = f, nil
}

// rotated gives the files that are newer than the one that is open, the newest
// first, or nil if it is still the live one. It is looked for before the open one
// is read, so that the writer can have added nothing after that reading.
func (r *reader) rotated() ([]*os.File, error) {
	live, err := os.Stat(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read log: %w", err)
	}
	if r.file != nil {
		open, err := r.file.Stat()
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		if os.SameFile(open, live) {
			return nil, nil
		}
	}
	files, err := openAll(r.path)
	if err != nil || len(files) == 0 {
		return nil, err
	}
	for i, f := range files {
		if r.file != nil && sameFile(f, r.file) {
			for _, old := range files[i:] {
				old.Close()
			}
			return files[:i], nil
		}
	}
	// The open one was unlinked; all that is there is newer.
	return files, nil
}
