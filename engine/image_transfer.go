package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	introspectionapi "github.com/containerd/containerd/api/services/introspection/v1"
	streamingapi "github.com/containerd/containerd/api/services/streaming/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/platforms"
	"github.com/containerd/typeurl/v2"
	registryapi "github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/gantryd/gantry/store/image"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

// hasTransfer asks containerd whether it pulls by itself (2.0 and ours do).
func (i *images) hasTransfer() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	resp, err := i.ctrd.Introspection.Plugins(ctx, &introspectionapi.PluginsRequest{Filters: []string{"type==io.containerd.transfer.v1"}})
	if err != nil {
		i.cfg.Log.Warn("ask containerd for its plugins", "err", err)
		return false
	}
	for _, p := range resp.Plugins {
		if p.Type == "io.containerd.transfer.v1" && p.InitErr == nil {
			return true
		}
	}
	return false
}

// pullTransfer asks containerd to pull name. The two streams beside the call are
// made first, and containerd finds them by their IDs:
//
//	→ Stream   progress: StreamInit      ← Progress, Progress, …
//	→ Stream   auth: StreamInit          ← AuthRequest   → AuthResponse
//	→ Transfer OCIRegistry → ImageStore, progress
func (i *images) pullTransfer(ctx context.Context, name string, platform *ocispec.Platform, auth registryapi.AuthConfig, tell func(image.Progress)) (image.Image, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the streams
	id := "gantry-pull-" + itoa(time.Now().UnixNano())
	progress, err := i.stream(ctx, id+"-progress")
	if err != nil {
		return image.Image{}, err
	}
	told := make(chan struct{})
	go func() {
		defer close(told)
		tellTransfer(progress, name, tell)
	}()
	resolver := &transfertypes.RegistryResolver{}
	host, _, _ := strings.Cut(name, "/")
	if i.insecure(host) {
		resolver.DefaultScheme = "http"
	}
	if c := credential(auth); c.Secret != "" {
		answers, err := i.stream(ctx, id+"-auth")
		if err != nil {
			return image.Image{}, err
		}
		resolver.AuthStream = id + "-auth"
		go answerAuth(answers, c.User, c.Secret)
	}
	want := platforms.DefaultSpec()
	if platform != nil {
		want = *platform
	}
	p := &types.Platform{OS: want.OS, Architecture: want.Architecture, Variant: want.Variant}
	err = i.transfer(ctx, id+"-progress",
		&transfertypes.OCIRegistry{Reference: name, Resolver: resolver},
		&transfertypes.ImageStore{
			Name: name, Platforms: []*types.Platform{p},
			Unpacks: []*transfertypes.UnpackConfiguration{{Platform: p, Snapshotter: i.cfg.Snapshotter}},
		})
	cancel()
	<-told
	if err != nil {
		return image.Image{}, err
	}
	return i.stores.Images.Get(context.WithoutCancel(ctx), name)
}

func (i *images) transfer(ctx context.Context, progress string, from, to proto.Message) error {
	source, err := typeurl.MarshalAnyToProto(from)
	if err != nil {
		return fmt.Errorf("pack %T: %w", from, err)
	}
	dest, err := typeurl.MarshalAnyToProto(to)
	if err != nil {
		return fmt.Errorf("pack %T: %w", to, err)
	}
	_, err = i.ctrd.Transfer.Transfer(ctx, &transferapi.TransferRequest{
		Source: source, Destination: dest, Options: &transferapi.TransferOptions{ProgressStream: progress},
	})
	return err
}

// stream opens a stream that containerd will find as id. It is there once
// containerd has answered the first message.
func (i *images) stream(ctx context.Context, id string) (streamingapi.Streaming_StreamClient, error) {
	s, err := i.ctrd.Streaming.Stream(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", id, err)
	}
	hello, err := typeurl.MarshalAnyToProto(&streamingapi.StreamInit{ID: id})
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", id, err)
	}
	if err := s.Send(hello); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", id, err)
	}
	if _, err := s.Recv(); err != nil {
		return nil, fmt.Errorf("open stream %s: %w", id, err)
	}
	return s, nil
}

// tellTransfer passes progress on until the stream ends.
func tellTransfer(s streamingapi.Streaming_StreamClient, name string, tell func(image.Progress)) {
	for {
		msg, err := s.Recv()
		if err != nil {
			return
		}
		var p transfertypes.Progress
		if proto.Unmarshal(msg.GetValue(), &p) != nil {
			continue
		}
		tell(fromTransfer(name, &p))
	}
}

// phases translates the words of the Transfer service.
func phaseOf(event string) image.Phase {
	switch event {
	case "waiting":
		return image.Waiting
	case "downloading":
		return image.Downloading
	case "extracting", "unpacking":
		return image.Extracting
	case "already exists":
		return image.Exists
	case "complete", "extracted", "done", "saved":
		return image.Done
	}
	return image.Resolving
}

// fromTransfer makes a step of p. Where it has no descriptor, the name tells
// ("layer-sha256:…"). "complete" is the end of a download, which for a layer that
// is to be extracted is not the end.
func fromTransfer(name string, p *transfertypes.Progress) image.Progress {
	step := image.Progress{Name: name, Phase: phaseOf(p.Event), Offset: p.Progress, Total: p.Total}
	if d := p.GetDesc(); d != nil {
		step.Desc = ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.Digest(d.Digest), Size: d.Size}
	} else if kind, dgst, ok := strings.Cut(p.Name, "-"); ok && digest.Digest(dgst).Validate() == nil {
		step.Desc.Digest = digest.Digest(dgst)
		if kind == "layer" {
			step.Desc.MediaType = ocispec.MediaTypeImageLayer
		}
	}
	return step
}

// answerAuth gives the credentials to containerd each time that it asks.
func answerAuth(s streamingapi.Streaming_StreamClient, user, secret string) {
	kind := transfertypes.AuthType_CREDENTIALS
	if user == "" {
		kind = transfertypes.AuthType_REFRESH
	}
	for {
		var asked *anypb.Any
		asked, err := s.Recv()
		if err != nil || errors.Is(err, io.EOF) || asked == nil {
			return
		}
		answer, err := typeurl.MarshalAnyToProto(&transfertypes.AuthResponse{AuthType: kind, Username: user, Secret: secret})
		if err != nil || s.Send(answer) != nil {
			return
		}
	}
}
