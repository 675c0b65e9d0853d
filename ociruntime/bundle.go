package ociruntime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/specjson"
)

// ReadSpec reads config.json of a bundle. The error says where in it the fault
// is: line and column, or the field.
func ReadSpec(bundle string) (*specs.Spec, error) {
	return ReadSpecFile(filepath.Join(bundle, specFile))
}

// ReadSpecFile is ReadSpec for a file of another name.
func ReadSpecFile(file string) (*specs.Spec, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the bundle: %w", err)
	}
	spec, err := parseSpec(data)
	if err != nil {
		return nil, errs.Because(errdefs.ErrInvalidArgument, "parse %s: %w", file, err)
	}
	return spec, nil
}

func parseSpec(data []byte) (*specs.Spec, error) {
	var spec *specs.Spec
	err := specjson.Unmarshal(data, &spec)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return nil, fmt.Errorf("%s: %w", position(data, syntax.Offset), err)
	case errors.As(err, &kind) && kind.Field != "":
		return nil, fmt.Errorf("%s: a JSON %s where %s is due", kind.Field, kind.Value, strings.TrimPrefix(kind.Type.String(), "specs."))
	case err != nil:
		return nil, err
	case spec == nil:
		return nil, errors.New("it is null")
	}
	return spec, nil
}

// position is line and column of the byte before offset, as editors count.
func position(data []byte, offset int64) string {
	before := data[:min(int(offset), len(data))]
	line := 1 + bytes.Count(before, []byte("\n"))
	return fmt.Sprintf("line %d column %d", line, len(before)-bytes.LastIndexByte(before, '\n')-1)
}

// Preview is the plan that [Create] would carry out. It changes nothing.
func Preview(o CreateOptions) (*Plan, error) {
	c, err := newContainer(&o)
	if err != nil {
		return nil, err
	}
	facts, err := c.look(o)
	if err != nil {
		return nil, err
	}
	return Compile(c.spec, facts)
}
