// Package format prints lists and objects as the user asks: in the command's own
// table, through a Go template, or as JSON.
package format

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"text/tabwriter"
	"text/template"
)

// List says how rows of one kind are printed. A row is a struct whose exported
// string fields, in the order of the alphabet, are what templates and JSON see.
type List struct {
	// Columns are the fields of the default table, in order.
	Columns []string
	// Headers are the column headers by field.
	Headers map[string]string
}

// Write prints rows. The format is "" or "table" for the default table, "json"
// for one JSON object a line, "table TEMPLATE" or a template.
func Write[T any](w io.Writer, l List, format string, rows []T) error {
	switch {
	case format == "" || format == "table":
		return writeTable(w, l, rows)
	case format == "json":
		return writeJSON(w, rows)
	}
	table, isTable := strings.CutPrefix(format, "table")
	if isTable {
		format = strings.TrimSpace(table)
	}
	format = unescape(format)
	t, err := parseList(format)
	if err != nil {
		return err
	}
	t.Funcs(template.FuncMap{"json": rowJSON[T]})
	var body bytes.Buffer
	if err := execute(&body, t, rows); err != nil {
		return err
	}
	if !isTable {
		_, err := body.WriteTo(w)
		return err
	}
	tw := newTabWriter(w)
	if err := writeHeader(tw, format, l.Headers); err != nil {
		return err
	}
	body.WriteTo(tw)
	return tw.Flush()
}

// writeJSON prints one object a line.
func writeJSON[T any](w io.Writer, rows []T) error {
	for _, row := range rows {
		text, err := rowJSON[T](row)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(w, text+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// rowJSON is JSON; of a whole row, docker escapes <, > and &, and only there.
func rowJSON[T any](v any) (string, error) {
	if _, ok := v.(T); ok {
		raw, err := json.Marshal(v)
		return string(raw), err
	}
	return JSON(v)
}

// Check says whether Write can read a format, before the engine is asked for rows.
func Check(format string) error {
	if format == "" || format == "table" || format == "json" {
		return nil
	}
	_, err := parseList(unescape(strings.TrimSpace(strings.TrimPrefix(format, "table"))))
	return err
}

func parseList(text string) (*template.Template, error) {
	t, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("failed to parse template: %w", errors.Unwrap(err))
	}
	return t, nil
}

// unescape reads the two escapes that a shell leaves in single quotes.
func unescape(s string) string {
	return strings.NewReplacer(`\t`, "\t", `\n`, "\n").Replace(s)
}

func newTabWriter(w io.Writer) *tabwriter.Writer {
	return tabwriter.NewWriter(w, 10, 1, 3, ' ', 0)
}

// writeTable prints the default table without the template engine.
func writeTable[T any](w io.Writer, l List, rows []T) error {
	tw := newTabWriter(w)
	for i, c := range l.Columns {
		if i > 0 {
			io.WriteString(tw, "\t")
		}
		io.WriteString(tw, l.Headers[c])
	}
	io.WriteString(tw, "\n")
	for _, row := range rows {
		v := reflect.ValueOf(row)
		for i, c := range l.Columns {
			if i > 0 {
				io.WriteString(tw, "\t")
			}
			io.WriteString(tw, v.FieldByName(c).String())
		}
		io.WriteString(tw, "\n")
	}
	return tw.Flush()
}

func execute[T any](w *bytes.Buffer, t *template.Template, rows []T) error {
	for _, row := range rows {
		if err := t.Execute(w, row); err != nil {
			return fmt.Errorf("failed to execute template: %w", err)
		}
		w.WriteByte('\n')
	}
	return nil
}

// header is what a table's template sees for its first line.
type header map[string]string

// Label is the header of a column with one label: the last part of its name.
func (header) Label(name string) string {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return strings.NewReplacer("-", " ", "_", " ").Replace(last)
}

func writeHeader(w io.Writer, format string, headers map[string]string) error {
	same := func(s string, _ ...any) string { return s }
	t, err := template.New("").Funcs(funcs()).Funcs(template.FuncMap{
		"json": same, "split": same, "join": same, "title": same, "lower": same, "upper": same,
		"pad": same, "truncate": same,
	}).Parse(format)
	if err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	if err := t.Execute(w, header(headers)); err != nil {
		return fmt.Errorf("template parsing error: %w", err)
	}
	_, err = io.WriteString(w, "\n")
	return err
}

// Parse reads a template with the functions that docker's have.
func Parse(text string) (*template.Template, error) {
	t, err := template.New("").Funcs(funcs()).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("template parsing error: %w", err)
	}
	return t, nil
}

func funcs() template.FuncMap {
	return template.FuncMap{
		"json":     func(v any) (string, error) { s, err := JSON(v); return s, err },
		"split":    strings.Split,
		"join":     strings.Join,
		"title":    title,
		"lower":    strings.ToLower,
		"upper":    strings.ToUpper,
		"pad":      pad,
		"truncate": truncate,
	}
}

// JSON is v in one line, with <, > and & as they are.
func JSON(v any) (string, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSpace(buf.String()), nil
}

func title(s string) string {
	up := true
	return strings.Map(func(r rune) rune {
		defer func() { up = r == ' ' || r == '\t' || r == '\n' }()
		if up {
			return []rune(strings.ToUpper(string(r)))[0]
		}
		return r
	}, s)
}

func pad(s string, before, after int) string {
	if s == "" {
		return s
	}
	return strings.Repeat(" ", before) + s + strings.Repeat(" ", after)
}

func truncate(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n])
	}
	return s
}
