package shim

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os/exec"

	"github.com/gantryd/gantry/internal/version"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/ociruntime"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// info answers a RuntimeRequest with RuntimeInfo (containerd/api, types/introspection.proto).
func info(stdin io.Reader, stdout io.Writer) error {
	data, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	var req taskapi.RuntimeRequest
	if err := wire.Unmarshal(data, &req); err != nil {
		return err
	}
	resp := &taskapi.RuntimeInfo{
		Name:    "io.containerd.gantry.v2",
		Version: &taskapi.RuntimeVersion{Version: version.Version, Revision: version.Commit},
		Options: req.Options,
	}
	if features, err := featuresOf(req.Options); err != nil {
		slog.Warn("features are not known", "err", err) // older runtimes do not tell
	} else {
		resp.Features = &taskapi.Any{TypeURL: featuresType, Value: features}
	}
	_, err = stdout.Write(wire.Marshal(resp))
	return err
}

// featuresType is containerd's name for the JSON of runtime-spec, features.md.
const featuresType = "types.containerd.io/opencontainers/runtime-spec/1/features/Features"

// featuresOf asks the runtime that the options name what it can.
func featuresOf(options *taskapi.Any) ([]byte, error) {
	var o taskapi.Options
	if options != nil && options.TypeURL == taskapi.OptionsType {
		if err := unmarshal(options.Value, &o); err != nil {
			return nil, err
		}
	}
	if o.BinaryName == "" {
		return json.Marshal(ociruntime.Features())
	}
	out, err := exec.Command(o.BinaryName, "features").Output()
	if err != nil {
		return nil, fmt.Errorf("ask runtime %s for its features: %w", o.BinaryName, err)
	}
	return out, nil
}
