package shim

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// optionsOf reads the options of a Create: containerd.runc.v1.Options, or, from a
// daemon that does not know that our runtime has the same as runc (containerd's
// CRI), runtimeoptions.v1.Options, which hold them in TOML. Others are not for us.
func optionsOf(a *taskapi.Any) (o taskapi.Options, err error) {
	if a == nil {
		return o, nil
	}
	switch a.TypeURL {
	case taskapi.OptionsType:
		return o, unmarshal(a.Value, &o)
	case taskapi.TOMLOptionsType, "cri." + taskapi.TOMLOptionsType: // before containerd 1.7
	default:
		return o, nil
	}
	var t taskapi.TOMLOptions
	if err := unmarshal(a.Value, &t); err != nil {
		return o, err
	}
	if len(t.Body) == 0 && t.Path != "" {
		if t.Body, err = os.ReadFile(t.Path); err != nil {
			return o, fmt.Errorf("read runtime options: %w: %w", err, errdefs.ErrInvalidArgument)
		}
	}
	return o, parseOptions(&o, string(t.Body))
}

// parseOptions reads the keys that stand before the first table of a TOML
// document. Unknown ones are passed over, as containerd does.
func parseOptions(o *taskapi.Options, body string) error {
	for line := range strings.Lines(body) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			return nil
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if err := set(o, strings.Trim(strings.TrimSpace(key), `"'`), strings.TrimSpace(value)); err != nil {
			return fmt.Errorf("runtime options: %s: %w: %w", line, err, errdefs.ErrInvalidArgument)
		}
	}
	return nil
}

// set sets the option that key names to a value in TOML.
func set(o *taskapi.Options, key, value string) (err error) {
	switch strings.ToLower(key) {
	case "nopivotroot":
		o.NoPivotRoot, err = strconv.ParseBool(value)
	case "nonewkeyring":
		o.NoNewKeyring, err = strconv.ParseBool(value)
	case "systemdcgroup":
		o.SystemdCgroup, err = strconv.ParseBool(value)
	case "shimcgroup":
		o.ShimCgroup, err = unquote(value)
	case "binaryname":
		o.BinaryName, err = unquote(value)
	case "root":
		o.Root, err = unquote(value)
	case "iouid":
		o.IOUid, err = parseID(value)
	case "iogid":
		o.IOGid, err = parseID(value)
	}
	return err
}

// unquote reads a string of TOML, of the sorts that stand on one line.
func unquote(value string) (string, error) {
	if s, ok := strings.CutPrefix(value, "'"); ok {
		if s, ok := strings.CutSuffix(s, "'"); ok {
			return s, nil
		}
	}
	return strconv.Unquote(value)
}

func parseID(value string) (uint32, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	return uint32(n), err
}
