package engine

import (
	"context"
	"net/http"
	"runtime"
	"time"

	systemapi "github.com/moby/moby/api/types/system"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/gantryd/gantry/internal/version"
)

// patience is how long a question about the machine below may take.
const patience = 2 * time.Second

// getVersion is GET /version.
func (s *system) getVersion(w http.ResponseWriter, r *http.Request) error {
	engine := systemapi.ComponentVersion{
		Name: "Engine", Version: version.Version,
		Details: map[string]string{
			"ApiVersion": apiVersion, "MinAPIVersion": minAPIVersion, "Arch": runtime.GOARCH, "Os": runtime.GOOS,
			"GitCommit": version.Commit, "GoVersion": runtime.Version(), "KernelVersion": kernel(), "Experimental": "false",
		},
	}
	out := systemapi.VersionResponse{
		Platform: systemapi.PlatformInfo{Name: "Gantry"}, Version: version.Version,
		APIVersion: apiVersion, MinAPIVersion: minAPIVersion, Os: runtime.GOOS, Arch: runtime.GOARCH,
		GitCommit: version.Commit, GoVersion: runtime.Version(), KernelVersion: kernel(),
		Components: []systemapi.ComponentVersion{engine},
	}
	if name, revision, err := s.below(r.Context()); err == nil {
		out.Components = append(out.Components, systemapi.ComponentVersion{
			Name: "containerd", Version: name, Details: map[string]string{"GitCommit": revision},
		})
	}
	return replyJSON(w, http.StatusOK, out)
}

// below is the version of the containerd that the engine stands on.
func (s *system) below(ctx context.Context) (name, revision string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	v, err := s.ctrd.Version.Version(ctx, &emptypb.Empty{})
	if err != nil {
		return "", "", err
	}
	return v.Version, v.Revision, nil
}

// kernel is the release of the running kernel.
func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
