package filter

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/containerd/errdefs"
)

// Parse reads filters, of which one must hold; an empty string holds for
// everything. The kind of its errors is InvalidArgument.
func Parse(filters ...string) (Filter, error) {
	var f Filter
	for _, s := range filters {
		p := parser{in: s}
		a, err := p.filter()
		if err != nil {
			return Filter{}, fmt.Errorf("parse filter %q: %w: %w", s, err, errdefs.ErrInvalidArgument)
		}
		f.any = append(f.any, a)
	}
	return f, nil
}

type parser struct {
	in  string
	pos int
}

func (p *parser) filter() (all, error) {
	if strings.TrimSpace(p.in) == "" {
		return nil, nil
	}
	var a all
	for {
		s, err := p.selector()
		if err != nil {
			return nil, err
		}
		a = append(a, s)
		p.space()
		if p.pos == len(p.in) {
			return a, nil
		}
		if !p.cut(",") {
			return nil, fmt.Errorf("want a comma at %q", p.in[p.pos:])
		}
	}
}

func (p *parser) selector() (selector, error) {
	path, err := p.path()
	if err != nil {
		return selector{}, err
	}
	s := selector{path: path, op: p.operator()}
	if s.op == present {
		return s, nil
	}
	if s.value, err = p.value(s.op == matches); err != nil {
		return selector{}, err
	}
	if s.op == matches {
		if s.re, err = regexp.Compile(s.value); err != nil {
			return selector{}, err
		}
	}
	return s, nil
}

func (p *parser) path() ([]string, error) {
	var path []string
	for {
		f, err := p.field()
		if err != nil {
			return nil, err
		}
		path = append(path, f)
		if !p.cut(".") {
			return path, nil
		}
	}
}

func (p *parser) field() (string, error) {
	p.space()
	if strings.HasPrefix(p.in[p.pos:], `"`) {
		return p.quoted()
	}
	start := p.pos
	for p.pos < len(p.in) {
		r, n := utf8.DecodeRuneInString(p.in[p.pos:])
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' && r != '-' {
			break
		}
		p.pos += n
	}
	if start == p.pos {
		return "", fmt.Errorf("want a field at %q", p.in[start:])
	}
	return p.in[start:p.pos], nil
}

func (p *parser) operator() operator {
	p.space()
	switch {
	case p.cut("=="):
		return equal
	case p.cut("!="):
		return notEqual
	case p.cut("~="):
		return matches
	}
	return present
}

func (p *parser) value(pattern bool) (string, error) {
	p.space()
	rest := p.in[p.pos:]
	switch {
	case strings.HasPrefix(rest, `"`):
		return p.quoted()
	case pattern && (strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "|")):
		return p.delimited(rest[0])
	}
	n := strings.IndexFunc(rest, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
	if n < 0 {
		n = len(rest)
	}
	if n == 0 {
		return "", fmt.Errorf("want a value at %q", rest)
	}
	p.pos += n
	return rest[:n], nil
}

// quoted reads a string in Go's syntax.
func (p *parser) quoted() (string, error) {
	q, err := strconv.QuotedPrefix(p.in[p.pos:])
	if err != nil {
		return "", fmt.Errorf("want the end of the quote at %q", p.in[p.pos:])
	}
	p.pos += len(q)
	return strconv.Unquote(q)
}

// delimited reads a pattern between two of delim; a backslash before delim
// makes it part of the pattern.
func (p *parser) delimited(delim byte) (string, error) {
	var b strings.Builder
	for i := p.pos + 1; i < len(p.in); i++ {
		switch c := p.in[i]; {
		case c == '\\' && i+1 < len(p.in) && p.in[i+1] == delim:
			b.WriteByte(delim)
			i++
		case c == delim:
			p.pos = i + 1
			return b.String(), nil
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("want %q at the end of %q", delim, p.in[p.pos:])
}

func (p *parser) cut(s string) bool {
	if !strings.HasPrefix(p.in[p.pos:], s) {
		return false
	}
	p.pos += len(s)
	return true
}

func (p *parser) space() {
	for p.pos < len(p.in) && (p.in[p.pos] == ' ' || p.in[p.pos] == '\t' || p.in[p.pos] == '\n') {
		p.pos++
	}
}
