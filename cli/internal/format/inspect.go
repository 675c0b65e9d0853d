package format

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Object is something that an engine described: the raw answer, and a typed value
// to decode it into for templates (a pointer to a struct; nil where there is none).
type Object struct {
	Raw   json.RawMessage
	Typed any
}

// Inspect prints objects: as one JSON array, a line of JSON each, or through a
// template. A template sees Go's names ({{.State.ExitCode}}) and, where these do
// not fit, those of the JSON.
func Inspect(w io.Writer, format string, objects []Object) error {
	switch format {
	case "":
		return inspectJSON(w, objects)
	case "json":
		format = "{{json .}}"
	}
	t, err := Parse(format)
	if err != nil {
		return &TemplateError{err}
	}
	for _, o := range objects {
		var buf bytes.Buffer
		typedErr := json.Unmarshal(o.Raw, o.Typed)
		if typedErr == nil && format != "{{json .}}" {
			typedErr = t.Execute(&buf, o.Typed)
		} else {
			typedErr = errTyped
		}
		if typedErr != nil {
			buf.Reset()
			raw, err := decode(o.Raw)
			if err != nil {
				return err
			}
			strict, err := t.Clone()
			if err != nil {
				return err
			}
			if err := strict.Option("missingkey=error").Execute(&buf, raw); err != nil {
				return &TemplateError{fmt.Errorf("template parsing error: %w", err)}
			}
		}
		// netip writes an address that is not set as "invalid IP"; the API's word is "".
		text := strings.NewReplacer("invalid IP", "", "invalid Prefix", "").Replace(buf.String())
		if _, err := io.WriteString(w, text+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// TemplateError says that the user's template is wrong.
type TemplateError struct{ Err error }

func (e *TemplateError) Error() string { return e.Err.Error() }

func (e *TemplateError) Unwrap() error { return e.Err }

var errTyped = fmt.Errorf("no typed value")

func inspectJSON(w io.Writer, objects []Object) error {
	if len(objects) == 0 {
		_, err := io.WriteString(w, "[]\n")
		return err
	}
	var all bytes.Buffer
	all.WriteByte('[')
	for i, o := range objects {
		if i > 0 {
			all.WriteByte(',')
		}
		all.Write(o.Raw)
	}
	all.WriteByte(']')
	var out bytes.Buffer
	if err := json.Indent(&out, all.Bytes(), "", "    "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err := out.WriteTo(w)
	return err
}

// decode reads JSON with whole numbers as int64: templates print and compare them.
func decode(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return numbers(v), nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	}
	return v
}
