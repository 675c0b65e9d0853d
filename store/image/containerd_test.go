package image_test

import (
	"os/exec"
	"strings"
	"testing"

	leases "github.com/containerd/containerd/api/services/leases/v1"
	"google.golang.org/grpc/metadata"

	"github.com/gantryd/gantry/remote/registrytest"
	contentproxy "github.com/gantryd/gantry/store/content/proxy"
	"github.com/gantryd/gantry/store/image"
	imageproxy "github.com/gantryd/gantry/store/image/proxy"
	"github.com/gantryd/gantry/store/internal/stock"
	snapshotproxy "github.com/gantryd/gantry/store/snapshot/proxy"
)

// The same code stands on a stock containerd's stores, and what it leaves there is
// an image for containerd's own tools.
func TestPullAndPushOnAStockContainerd(t *testing.T) {
	c := stock.StartContainerd(t)
	ctx := stock.Context(t)
	lease, err := leases.NewLeasesClient(c.Conn).Create(ctx, &leases.CreateRequest{ID: "pull"})
	if err != nil {
		t.Fatal(err)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-lease", lease.Lease.ID)
	s := image.Stores{
		Content: contentproxy.New(c.Conn), Snapshots: snapshotproxy.New(c.Conn, "overlayfs"), Images: imageproxy.New(c.Conn),
	}
	reg := registrytest.Start(t)
	serve(reg, "a", "1",
		gzipLayer(t, file{name: "etc/"}, file{name: "etc/a", data: "one"}, file{name: "etc/b", data: "b"}),
		gzipLayer(t, file{name: "etc/a", data: big(1, 1<<20)}, file{name: "etc/.wh.b"}),
		gzipLayer(t, file{name: "last", data: "last"}),
	)
	img, err := image.Pull(ctx, s, reg.Host+"/a:1", image.PullOptions{Registry: client(), Unpack: true})
	if err != nil {
		t.Fatal(err)
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	ctr := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("ctr", append([]string{"-a", c.Socket, "-n", md.Get("containerd-namespace")[0]}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("ctr %q: %v: %s", args, err, out)
		}
		return string(out)
	}
	if _, err := leases.NewLeasesClient(c.Conn).Delete(ctx, &leases.DeleteRequest{ID: "pull", Sync: true}); err != nil {
		t.Fatal(err)
	}
	// The collector has been: what is left is held by the labels alone.
	if out := ctr("images", "check"); !strings.Contains(out, "complete (4/4)") || !strings.Contains(out, "true") {
		t.Errorf("ctr finds the image not whole: %s", out)
	}
	dir := t.TempDir()
	ctr("images", "mount", img.Name, dir)
	wantFile(t, dir, "etc/a", big(1, 1<<20))
	wantFile(t, dir, "last", "last")
	ctr("images", "unmount", "--rm", dir)

	other := registrytest.Start(t)
	if _, err := image.Push(stock.Context(t), s, other.Host+"/b:1", img.Target, image.PushOptions{Registry: client()}); err != nil {
		t.Fatal(err)
	}
	if got := string(other.Manifest("b", "1")); got != string(reg.Manifest("a", "1")) {
		t.Errorf("registry has %s", got)
	}
	ctr("images", "rm", "--sync", img.Name)
	if out := ctr("content", "ls", "-q") + ctr("snapshots", "ls"); strings.Contains(out, "sha256:") {
		t.Errorf("left after rm: %s", out)
	}
}
