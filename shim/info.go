package shim

import (
	"io"

	"github.com/gantryd/gantry/internal/version"
	"github.com/gantryd/gantry/shim/internal/taskapi"
	"github.com/gantryd/gantry/shim/internal/wire"
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
	_, err = stdout.Write(wire.Marshal(&taskapi.RuntimeInfo{
		Name:    "io.containerd.gantry.v2",
		Version: &taskapi.RuntimeVersion{Version: version.Version, Revision: version.Commit},
		Options: req.Options,
	}))
	return err
}
