package lifecycle

import (
	"context"

	api "github.com/containerd/containerd/api/services/version/v1"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/internal/version"
)

// compatible is the containerd release whose API and behaviour this is. Clients
// compare it (nerdctl asks for 2.0 or newer before it uses the transfer service);
// what follows + is build metadata to semantic versioning.
const compatible = "v2.1.0"

func release() string { return compatible + "+gantry." + version.Version }

// versions is containerd.services.version.v1.Version.
type versions struct{ api.UnimplementedVersionServer }

func (versions) Version(context.Context, *emptypb.Empty) (*api.VersionResponse, error) {
	return &api.VersionResponse{Version: release(), Revision: version.Commit}, nil
}
