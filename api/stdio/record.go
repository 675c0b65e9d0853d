package stdio

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// MaxLine is the longest line in bytes, its newline not counted, that is one
// record; what is longer is cut into records of MaxLine (as Docker's copier does).
const MaxLine = 16 << 10

// TimeFormat is the form of a record's time, always in UTC.
const TimeFormat = time.RFC3339Nano

// Record is one line of a json-file log.
type Record struct {
	Log    string    `json:"log"`    // ends in a newline unless the line goes on in the next record
	Stream string    `json:"stream"` // "stdout" or "stderr"
	Time   time.Time `json:"time"`
}

// ParseRecord reads one line of a json-file log.
func ParseRecord(line []byte) (Record, error) {
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{}, fmt.Errorf("parse log record: %w", err)
	}
	return r, nil
}

// AppendRecord encodes one line of a json-file log behind b, newline included.
// line has no newline; whole says that the container ended it with one. at is in
// TimeFormat.
func AppendRecord(b, line []byte, whole bool, stream, at string) []byte {
	b = append(b, `{"log":"`...)
	b = appendEscaped(b, line)
	if whole {
		b = append(b, `\n`...)
	}
	b = append(b, `","stream":"`...)
	b = append(b, stream...)
	b = append(b, `","time":"`...)
	b = append(b, at...)
	return append(b, "\"}\n"...)
}

const hex = "0123456789abcdef"

// appendEscaped writes s as the inside of a JSON string in Docker's spelling:
// what HTML minds is escaped, of the control characters only newline and return
// have a short form, and bytes that are no UTF-8 become U+FFFD.
func appendEscaped(b, s []byte) []byte {
	start := 0
	for i := 0; i < len(s); {
		if len(s)-i >= 8 && allPlain(binary.LittleEndian.Uint64(s[i:])) {
			i += 8
			continue
		}
		c := s[i]
		if c < utf8.RuneSelf {
			if plain[c] {
				i++
				continue
			}
			b = append(b, s[start:i]...)
			switch c {
			case '"', '\\':
				b = append(b, '\\', c)
			case '\n':
				b = append(b, '\\', 'n')
			case '\r':
				b = append(b, '\\', 'r')
			default:
				b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			}
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRune(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(append(b, s[start:i]...), `\ufffd`...)
			start = i + size
		case r == '\u2028' || r == '\u2029': // newlines to JavaScript
			b = append(append(b, s[start:i]...), `\u202`...)
			b = append(b, hex[r&15])
			start = i + size
		}
		i += size
	}
	return append(b, s[start:]...)
}

// allPlain says whether plain is true of all of eight bytes. In a word of bytes v,
// (v - ones) &^ v has the high bit of the lowest byte that is 0, and of none where
// no byte is; a byte less than n is found in the same way. Two characters that
// differ in one bit are looked for at once.
func allPlain(v uint64) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x80 * ones
	)
	quotes := v&^(('"'^'&')*ones) ^ '"'&'&'*ones
	angles := v&^(('<'^'>')*ones) ^ '<'&'>'*ones
	slashes := v ^ '\\'*ones
	found := (quotes - ones) &^ quotes
	found |= (angles - ones) &^ angles
	found |= (slashes - ones) &^ slashes
	found |= (v - ' '*ones) &^ v // control characters
	found |= v                   // no ASCII
	return found&highs == 0
}

// plain has the ASCII characters that stand for themselves.
var plain = func() (t [utf8.RuneSelf]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return t
}()
