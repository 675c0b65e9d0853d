package jsonlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"

	"github.com/gantryd/gantry/api/stdio"
)

// tail reads the last records of files, which are the newest first: backwards to
// find where they begin, and then forwards. Records that other options leave out
// do not count.
func (r *reader) tail(ctx context.Context, files []*os.File) error {
	want := r.opts.Tail
	var last []stdio.Record // of those files that were read, in the order of writing
	for _, f := range files {
		// Of the live file, what follows is read on from there.
		end, err := seekToLine(f)
		if err != nil {
			return err
		}
		found, err := r.lastOf(f, end, want-len(last))
		if err != nil {
			return err
		}
		last = append(found, last...)
		if len(last) >= want || ctx.Err() != nil {
			break
		}
	}
	for _, rec := range last {
		if err := r.emit(rec); err != nil {
			return err
		}
	}
	return ctx.Err()
}

const block = 64 << 10

// lastOf gives up to n records before the offset end of f that are asked for.
func (r *reader) lastOf(f *os.File, end int64, n int) ([]stdio.Record, error) {
	var recs []stdio.Record // from the last to the first
	var rest []byte         // the end of a line whose beginning is in an earlier block
	for end > 0 && len(recs) < n {
		size := min(end, block)
		end -= size
		buf := make([]byte, size, size+int64(len(rest)))
		if _, err := io.ReadFull(io.NewSectionReader(f, end, size), buf); err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
		buf = append(buf, rest...)
		for len(recs) < n {
			i := bytes.LastIndexByte(buf, '\n')
			if i < 0 {
				break
			}
			recs = r.keep(recs, buf[i+1:])
			buf = buf[:i]
		}
		rest = buf
	}
	if end == 0 && len(recs) < n {
		recs = r.keep(recs, rest)
	}
	for i, j := 0, len(recs)-1; i < j; i, j = i+1, j-1 {
		recs[i], recs[j] = recs[j], recs[i]
	}
	return recs, nil
}

// keep adds the record of line to recs, if it is asked for.
func (r *reader) keep(recs []stdio.Record, line []byte) []stdio.Record {
	one := *r
	one.emit = func(rec stdio.Record) error { recs = append(recs, rec); return nil }
	// The error is that the record is later than asked for: it is left out.
	if err := one.record(line); err != nil {
		return recs
	}
	return recs
}

// seekToLine sets f behind its last newline, and gives the offset.
func seekToLine(f *os.File) (int64, error) {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	for end > 0 {
		size := min(end, block)
		buf := make([]byte, size)
		if _, err := f.ReadAt(buf, end-size); err != nil {
			return 0, fmt.Errorf("read log: %w", err)
		}
		if i := bytes.LastIndexByte(buf, '\n'); i >= 0 {
			return f.Seek(end-size+int64(i)+1, io.SeekStart)
		}
		end -= size
	}
	return f.Seek(0, io.SeekStart)
}
