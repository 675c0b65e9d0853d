package lifecycle_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// clientStream is a client's end of a stream of bytes.
type clientStream struct {
	streamingapi.Streaming_StreamClient
}

func (a *api) stream(t *testing.T, ctx context.Context, id string) clientStream {
	t.Helper()
	s := clientStream{ok(streamingapi.NewStreamingClient(a.ClientConnInterface).Stream(ctx))(t)}
	s.put(t, &streamingapi.StreamInit{ID: id})
	ok(s.Recv())(t)
	return s
}

func (s clientStream) put(t *testing.T, m proto.Message) {
	t.Helper()
	if err := s.Send(anyOf(t, m)); err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func anyOf(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	return ok(typeurl.MarshalAnyToProto(m))(t)
}

// write sends data, never more than was granted.
func (s clientStream) write(t *testing.T, data []byte) {
	granted := 0
	for len(data) > 0 {
		if granted == 0 {
			m, err := s.Recv()
			if err != nil {
				t.Errorf("%d bytes are unsent: %v", len(data), err)
				return
			}
			granted = int(ok(typeurl.UnmarshalAny(m))(t).(*transfertypes.WindowUpdate).Update)
		}
		n := min(len(data), granted, 1000)
		s.put(t, &transfertypes.Data{Data: data[:n]})
		data, granted = data[n:], granted-n
	}
	if err := s.CloseSend(); err != nil {
		t.Error(err)
	}
}

// read receives all, granting a little at a time.
func (s clientStream) read(t *testing.T) (all []byte) {
	for {
		s.put(t, &transfertypes.WindowUpdate{Update: 7000})
		for granted := 7000; granted > 0; {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return all
			} else if err != nil {
				t.Error(err)
				return all
			}
			data := ok(typeurl.UnmarshalAny(m))(t).(*transfertypes.Data).Data
			all, granted = append(all, data...), granted-len(data)
		}
	}
}

func TestBytesAreEchoed(t *testing.T) {
	d := newDaemon(t)
	d.startOurs(t)
	a, ctx := d.dial(t), in("ns")
	for _, data := range [][]byte{nil, []byte("few"), bytes.Repeat([]byte("many"), 1<<15)} {
		from, to := a.stream(t, ctx, "from"), a.stream(t, ctx, "to")
		go from.write(t, data)
		echoed := make(chan []byte, 1)
		go func() { echoed <- to.read(t) }()
		ok(transferapi.NewTransferClient(a.ClientConnInterface).Transfer(ctx, &transferapi.TransferRequest{
			Source:      anyOf(t, &transfertypes.ImageImportStream{Stream: "from"}),
			Destination: anyOf(t, &transfertypes.ImageExportStream{Stream: "to"}),
		}))(t)
		if got := <-echoed; !bytes.Equal(got, data) {
			t.Errorf("echo of %d bytes has %d", len(data), len(got))
		}
	}
}

// What an import names, and how, is containerd's way (core/transfer/image).
func TestAnImportNamesWhatItsDestinationSays(t *testing.T) {
	d := newDaemon(t)
	d.startOurs(t)
	a := d.dial(t)
	for _, tt := range []struct {
		name      string
		annotated map[string]string // the archive's one image
		image     string            // of the index
		refs      []*transfertypes.ImageReference
		want      []string // with M and I for the digests of manifest and index
	}{
		{"nothing is named where nothing is asked for", whole("a.org/x:1"), "", nil, nil},
		{"a whole name comes under any prefix that may be left", whole("a.org/x:1"), "", refs(&transfertypes.ImageReference{Name: "p", IsPrefix: true, AllowOverwrite: true}), []string{"a.org/x:1"}},
		{"a whole name must have the prefix", whole("a.org/x:1"), "", refs(&transfertypes.ImageReference{Name: "a.org", IsPrefix: true}, &transfertypes.ImageReference{Name: "a.o", IsPrefix: true}), []string{"a.org/x:1"}},
		{"a tag is given to the prefix", tagged("1"), "", refs(&transfertypes.ImageReference{Name: "a.org/y", IsPrefix: true}), []string{"a.org/y:1"}},
		{"a tag is no whole name", whole("1"), "", refs(&transfertypes.ImageReference{Name: "a.org/y", IsPrefix: true}), nil},
		{"the index has the name of the destination", nil, "a.org/i:1", nil, []string{"a.org/i:1 I"}},
		{"digests are names, of the index too", whole("a.org/x:1"), "", refs(&transfertypes.ImageReference{Name: "a.org/x", IsPrefix: true, AddDigest: true}), []string{"a.org/x:1", "a.org/x@M", "a.org/x@I I"}},
		{"a digest may be left out where there is a name", whole("a.org/x:1"), "", refs(&transfertypes.ImageReference{Name: "a.org/x", IsPrefix: true, AddDigest: true, SkipNamedDigest: true}), []string{"a.org/x:1", "a.org/x@I I"}},
		{"a name that is no prefix goes to the index", nil, "", refs(&transfertypes.ImageReference{Name: "a.org/z:2"}), []string{"a.org/z:2 I"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := in(strings.ReplaceAll(strings.ReplaceAll(tt.name, " ", "-"), ",", ""))
			archive, manifest, index := layout(t, tt.annotated)
			s := a.stream(t, ctx, "in")
			go s.write(t, archive)
			ok(transferapi.NewTransferClient(a.ClientConnInterface).Transfer(ctx, &transferapi.TransferRequest{
				Source:      anyOf(t, &transfertypes.ImageImportStream{Stream: "in"}),
				Destination: anyOf(t, &transfertypes.ImageStore{Name: tt.image, ExtraReferences: tt.refs, Labels: map[string]string{"l": "1"}}),
			}))(t)
			var got []string
			for _, img := range ok(a.images.List(ctx, &imagesapi.ListImagesRequest{}))(t).Images {
				name := strings.NewReplacer(manifest.String(), "M", index.String(), "I").Replace(img.Name)
				switch img.Target.Digest {
				case index.String():
					name += " I"
				case manifest.String():
				default:
					t.Errorf("%s is %s", name, img.Target.Digest)
				}
				wantLabels(t, img.Labels, "l=1")
				got = append(got, name)
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	t.Run("further names go with the name", func(t *testing.T) {
		ctx := in("further")
		archive, _, _ := layout(t, whole("a.org/x:1"))
		s := a.stream(t, ctx, "in")
		go s.write(t, archive)
		ok(transferapi.NewTransferClient(a.ClientConnInterface).Transfer(ctx, &transferapi.TransferRequest{
			Source:      anyOf(t, &transfertypes.ImageImportStream{Stream: "in"}),
			Destination: anyOf(t, &transfertypes.ImageStore{Name: "a.org/i", ExtraReferences: refs(&transfertypes.ImageReference{Name: "a.org/x", IsPrefix: true})}),
		}))(t)
		if n := len(ok(a.images.List(ctx, &imagesapi.ListImagesRequest{}))(t).Images); n != 2 {
			t.Errorf("%d images, want 2", n)
		}
		ok(a.images.Delete(ctx, &imagesapi.DeleteImageRequest{Name: "a.org/i", Sync: true}))(t)
		if n := len(ok(a.images.List(ctx, &imagesapi.ListImagesRequest{}))(t).Images); n != 0 {
			t.Errorf("%d images are left", n)
		}
	})
}

func refs(all ...*transfertypes.ImageReference) []*transfertypes.ImageReference { return all }

func whole(name string) map[string]string {
	return map[string]string{"io.containerd.image.name": name}
}

func tagged(tag string) map[string]string {
	return map[string]string{ocispec.AnnotationRefName: tag}
}

// layout is an archive with one image of no layers.
func layout(t *testing.T, annotations map[string]string) (archive []byte, manifest, index digest.Digest) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	file := func(name string, data []byte) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		ok(w.Write(data))(t)
	}
	blob := func(mediaType string, v any) ocispec.Descriptor {
		data := ok(json.Marshal(v))(t)
		dgst := digest.FromBytes(data)
		file("blobs/sha256/"+dgst.Encoded(), data)
		return ocispec.Descriptor{MediaType: mediaType, Digest: dgst, Size: int64(len(data))}
	}
	m := ocispec.Manifest{
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    blob(ocispec.MediaTypeImageConfig, ocispec.Image{Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}}),
	}
	m.SchemaVersion = 2
	desc := blob(ocispec.MediaTypeImageManifest, m)
	desc.Annotations = annotations
	i := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{desc}}
	i.SchemaVersion = 2
	data := ok(json.Marshal(i))(t)
	file(ocispec.ImageIndexFile, data)
	file(ocispec.ImageLayoutFile, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), desc.Digest, digest.FromBytes(data)
}
