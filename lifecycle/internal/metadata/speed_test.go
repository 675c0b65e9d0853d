package metadata_test

import (
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/gantryd/gantry/lifecycle/internal/metadata"
)

// What a run of a container writes: a snapshot and a record come and go.
func BenchmarkRecordAndSnapshot(b *testing.B) {
	s := open(b, b.TempDir())
	sn := must[*metadata.Snapshots](b)(s.Snapshots(metadata.Scope{Namespace: "ns"}, ""))
	spec := &anypb.Any{Value: make([]byte, 8<<10)}
	for b.Loop() {
		if _, err := sn.Prepare(b.Context(), "s", "", map[string]string{gcRoot: "x"}); err != nil {
			b.Fatal(err)
		}
		c := &containersapi.Container{ID: "c", Runtime: &containersapi.Container_Runtime{Name: "r"}, Spec: spec, Snapshotter: "overlayfs", SnapshotKey: "s"}
		must[*containersapi.Container](b)(s.Containers("ns").Create(c))
		if err := s.Containers("ns").Delete("c"); err != nil {
			b.Fatal(err)
		}
		if err := sn.Remove(b.Context(), "s"); err != nil {
			b.Fatal(err)
		}
	}
}
