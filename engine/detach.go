package engine

import (
	"errors"
	"io"
	"strings"
)

// errDetached is what a detachReader gives when its keys were typed.
var errDetached = errors.New("detach keys were typed")

// defaultDetachKeys are Docker's: ctrl-p and ctrl-q.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// parseDetachKeys reads "ctrl-p,ctrl-q,a": characters, and ctrl- with a letter or
// one of @ [ \ ] ^ _. The empty string is the default.
func parseDetachKeys(s string) ([]byte, error) {
	if s == "" {
		s = defaultDetachKeys
	}
	var keys []byte
	for key := range strings.SplitSeq(s, ",") {
		switch c, ctrl := strings.CutPrefix(strings.ToLower(key), "ctrl-"); {
		case !ctrl && len(key) == 1:
			keys = append(keys, key[0])
		case !ctrl && key == "DEL":
			keys = append(keys, 127)
		case ctrl && len(c) == 1 && c[0] >= 'a' && c[0] <= 'z':
			keys = append(keys, c[0]-'a'+1)
		case ctrl && len(c) == 1 && strings.Contains(`@[\]^_`, c):
			keys = append(keys, c[0]-'@')
		default:
			return nil, invalid("Invalid detach keys (%s) provided", s)
		}
	}
	return keys, nil
}

// detachReader passes on what r gives until keys are in it, which it keeps to
// itself. The beginning of keys is held back until it is known not to be them.
type detachReader struct {
	r    io.Reader
	keys []byte
	held int    // how many of keys were read last
	rest []byte // read, and not passed on yet
	err  error  // after rest
}

func (d *detachReader) Read(p []byte) (int, error) {
	for len(d.rest) == 0 && d.err == nil {
		buf := make([]byte, len(p))
		n, err := d.r.Read(buf)
		d.take(buf[:n])
		if d.err == nil {
			d.err = err
			if err != nil {
				d.rest = append(d.rest, d.keys[:d.held]...)
				d.held = 0
			}
		}
	}
	n := copy(p, d.rest)
	d.rest = d.rest[n:]
	if n > 0 {
		return n, nil
	}
	return 0, d.err
}

// take sorts what was typed into what is passed on and what is held back.
func (d *detachReader) take(typed []byte) {
	for _, b := range typed {
		if b != d.keys[d.held] && d.held > 0 {
			d.rest = append(d.rest, d.keys[:d.held]...)
			d.held = 0
		}
		if b != d.keys[d.held] {
			d.rest = append(d.rest, b)
			continue
		}
		d.held++
		if d.held == len(d.keys) {
			d.err = errDetached
			return
		}
	}
}
