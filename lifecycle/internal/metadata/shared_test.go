package metadata_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/lifecycle/internal/metadata"
	"github.com/gantryd/gantry/store/content"
)

// A blob that another namespace has, or that another writer has committed and not yet
// linked, is shared by any number of writers of one ref at the same time: none of them
// writes it again.
func TestABlobThatIsThereIsSharedByAllWhoWriteIt(t *testing.T) {
	s := open(t, t.TempDir())
	data := []byte("blob")
	if _, err := write(t.Context(), s.Content(metadata.Scope{Namespace: "one"}), string(data), map[string]string{"containerd.io/gc.root": "1"}); err != nil {
		t.Fatal(err)
	}
	c := s.Content(metadata.Scope{Namespace: "two"})
	desc := ocispec.Descriptor{Digest: digest.FromBytes(data), Size: int64(len(data))}
	writer := func() content.Writer {
		w, err := content.Open(t.Context(), c, "ref", desc)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		return w
	}
	// Who writes it again nevertheless holds up nobody who does not.
	stubborn := writer()
	if err := stubborn.Truncate(0); err != nil {
		t.Fatal(err)
	}
	fill := func(w content.Writer, r io.Reader) {
		t.Helper()
		if err := content.Fill(t.Context(), c, w, r, desc, map[string]string{"containerd.io/gc.root": "1"}); err != nil {
			t.Error(err)
		}
	}
	first, second := writer(), writer()
	fill(first, bytes.NewReader(data))
	fill(second, bytes.NewReader(data))
	if _, err := c.Info(t.Context(), desc.Digest); err != nil {
		t.Error(err)
	}
}
