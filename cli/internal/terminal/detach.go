package terminal

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// DefaultDetachKeys let go of a container where the user has not chosen others.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// ErrDetached is what a DetachReader ends with when the keys were typed.
var ErrDetached = errors.New("read escape sequence")

// ParseDetachKeys reads a sequence as --detach-keys has it: single characters, or
// ctrl- and one of a-z @ [ \ ] ^ _, separated by commas.
func ParseDetachKeys(s string) ([]byte, error) {
	var keys []byte
	for key := range strings.SplitSeq(s, ",") {
		ctrl, isCtrl := strings.CutPrefix(strings.ToLower(key), "ctrl-")
		switch {
		case len(key) == 1:
			keys = append(keys, key[0])
		case key == "DEL":
			keys = append(keys, 127)
		case isCtrl && len(ctrl) == 1 && ctrl[0] >= 'a' && ctrl[0] <= 'z':
			keys = append(keys, ctrl[0]-'a'+1)
		case isCtrl && ctrl == "@":
			keys = append(keys, 0)
		case isCtrl && len(ctrl) == 1 && strings.Contains(`[\]^_`, ctrl):
			keys = append(keys, ctrl[0]-'['+27)
		default:
			return nil, fmt.Errorf("invalid detach keys (%s): Unknown character: '%s'", s, key)
		}
	}
	return keys, nil
}

// DetachReader passes on what it reads until the keys are read in a row: it then
// ends with ErrDetached. Keys that turn out to be no whole sequence are passed on.
type DetachReader struct {
	r       io.Reader
	keys    []byte
	matched int    // keys read so far and held back
	out     []byte // ready to be passed on
	err     error
}

// NewDetachReader watches r for keys, of which there is at least one.
func NewDetachReader(r io.Reader, keys []byte) *DetachReader {
	return &DetachReader{r: r, keys: keys}
}

func (d *DetachReader) Read(p []byte) (int, error) {
	for len(d.out) == 0 && d.err == nil {
		buf := make([]byte, max(len(p), 1))
		n, err := d.r.Read(buf)
		for _, b := range buf[:n] {
			if d.take(b) {
				err = ErrDetached
				break
			}
		}
		if err != nil && !errors.Is(err, ErrDetached) {
			d.out = append(d.out, d.keys[:d.matched]...)
			d.matched = 0
		}
		d.err = err
	}
	n := copy(p, d.out)
	d.out = d.out[n:]
	if len(d.out) > 0 {
		return n, nil
	}
	return n, d.err
}

// take looks at one byte and reports whether it completes the sequence.
func (d *DetachReader) take(b byte) bool {
	if b == d.keys[d.matched] {
		d.matched++
		return d.matched == len(d.keys)
	}
	d.out = append(d.out, d.keys[:d.matched]...)
	d.matched = 0
	if b == d.keys[0] {
		d.matched = 1
		return len(d.keys) == 1
	}
	d.out = append(d.out, b)
	return false
}
