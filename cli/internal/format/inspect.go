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
		return inspectCompact(w, objects)
	case "{{json .}}":
		return inspectLines(w, objects)
	}
	t, err := Parse(format)
	if err != nil {
		return err
	}
	for _, o := range objects {
		var buf bytes.Buffer
		typedErr := json.Unmarshal(o.Raw, o.Typed)
		if typedErr == nil {
			typedErr = t.Execute(&buf, o.Typed)
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
				return fmt.Errorf("template parsing error: %w", err)
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

// inspectCompact is all of them as one array in one line, as the engine wrote them.
func inspectCompact(w io.Writer, objects []Object) error {
	all, err := array(objects)
	if err != nil {
		return err
	}
	all.WriteByte('\n')
	_, err = all.WriteTo(w)
	return err
}

// inspectLines is one object a line, as the engine wrote it.
func inspectLines(w io.Writer, objects []Object) error {
	for _, o := range objects {
		var line bytes.Buffer
		if err := json.Compact(&line, o.Raw); err != nil {
			return err
		}
		line.WriteByte('\n')
		if _, err := line.WriteTo(w); err != nil {
			return err
		}
	}
	return nil
}

func array(objects []Object) (*bytes.Buffer, error) {
	var all bytes.Buffer
	all.WriteByte('[')
	for i, o := range objects {
		if i > 0 {
			all.WriteByte(',')
		}
		if err := json.Compact(&all, o.Raw); err != nil {
			return nil, err
		}
	}
	all.WriteByte(']')
	return &all, nil
}

func inspectJSON(w io.Writer, objects []Object) error {
	if len(objects) == 0 {
		_, err := io.WriteString(w, "[]\n")
		return err
	}
	all, err := array(objects)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, all.Bytes(), "", "    "); err != nil {
		return err
	}
	out.WriteByte('\n')
	_, err = out.WriteTo(w)
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
