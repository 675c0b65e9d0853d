package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	leasesapi "github.com/containerd/containerd/api/services/leases/v1"
	"github.com/opencontainers/go-digest"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// library is the content and the leases of a daemon, over the containerd API, in a
// namespace of the bench's own.
type library struct {
	name    string
	content contentapi.ContentClient
	leases  leasesapi.LeasesClient
}

// held is the lease that holds all blobs.
const held = "held"

func newLibrary(tb testing.TB, name, address string) library {
	tb.Helper()
	conn, err := grpc.NewClient("unix:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return library{name, contentapi.NewContentClient(conn), leasesapi.NewLeasesClient(conn)}
}

// tenThousand fills stores with small blobs that one lease holds, reads them in
// each way, and lets go of them. The client is the same code for all.
func (w *world) tenThousand(r *report, tb testing.TB, title string) {
	all := []library{
		newLibrary(tb, "lifecycle", w.lifecycle.ContainerdAddress),
		newLibrary(tb, "Debian's containerd", w.containerd.Address),
		newLibrary(tb, "current containerd", w.newCtr[2]),
	}
	each := func(do func(library) error) []contender {
		var cs []contender
		for _, l := range all {
			cs = append(cs, contender{name: l.name, run: func() error { return do(l) }})
		}
		return cs
	}
	r.row("\n## %s\n\n%d blobs of some bytes, held by one lease, through the same client.", title, *blobs)
	times := max(*runs/6, 1)
	filled := inTurn(tb, 1, each(library.fill)...)
	listed := interleave(tb, times, each(library.list)...)
	walked := interleave(tb, times, each(library.walk)...)
	kept := interleave(tb, times, each(library.collectNothing)...)
	collected := inTurn(tb, 1, each(library.collect)...)
	r.chapter(tb, title+": written, eight at a time", filled)
	r.chapter(tb, title+": listed", listed)
	r.chapter(tb, title+": asked for one by one, eight at a time", walked)
	r.chapter(tb, title+": a garbage collection that keeps all", kept)
	r.chapter(tb, title+": a garbage collection that takes all", collected)
}

func (library) blob(i int) []byte { return fmt.Appendf(nil, "blob %d of the bench", i) }

// in is a request in the namespace of the bench, with further pairs of metadata.
func (library) in(pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), append([]string{"containerd-namespace", "bench"}, pairs...)...)
}

func (l library) fill() error {
	if _, err := l.leases.Create(l.in(), &leasesapi.CreateRequest{ID: held}); err != nil {
		return err
	}
	return atATime(8, *blobs, func(i int) error {
		s, err := l.content.Write(l.in("containerd-lease", held))
		if err != nil {
			return err
		}
		data := l.blob(i)
		err = s.Send(&contentapi.WriteContentRequest{
			Action: contentapi.WriteAction_COMMIT, Ref: fmt.Sprint("bench-", i), Data: data, Total: int64(len(data)), Expected: digest.FromBytes(data).String(),
		})
		if _, answer := s.Recv(); answer != nil {
			return errors.Join(err, answer)
		}
		return s.CloseSend()
	})
}

func (l library) list() error { return l.count(*blobs) }

func (l library) count(want int) error {
	s, err := l.content.List(l.in(), &contentapi.ListContentRequest{})
	if err != nil {
		return err
	}
	n := 0
	for {
		some, err := s.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		n += len(some.Info)
	}
	if n != want {
		return fmt.Errorf("%d blobs are listed, not %d", n, want)
	}
	return nil
}

func (l library) walk() error {
	return atATime(8, *blobs, func(i int) error {
		_, err := l.content.Info(l.in(), &contentapi.InfoRequest{Digest: digest.FromBytes(l.blob(i)).String()})
		return err
	})
}

// collectNothing deletes a lease that holds nothing: the collection that follows
// marks everything.
func (l library) collectNothing() error {
	if _, err := l.leases.Create(l.in(), &leasesapi.CreateRequest{ID: "empty"}); err != nil {
		return err
	}
	_, err := l.leases.Delete(l.in(), &leasesapi.DeleteRequest{ID: "empty", Sync: true})
	return err
}

func (l library) collect() error {
	if _, err := l.leases.Delete(l.in(), &leasesapi.DeleteRequest{ID: held, Sync: true}); err != nil {
		return err
	}
	return l.count(0)
}
