package lifecycle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	transferapi "github.com/containerd/containerd/api/services/transfer/v1"
	"github.com/containerd/containerd/api/types"
	transfertypes "github.com/containerd/containerd/api/types/transfer"
	"github.com/containerd/typeurl/v2"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"

	"github.com/gantryd/gantry/remote/registrytest"
)

func (a *api) transfer(t *testing.T, ctx context.Context, from, to proto.Message) error {
	t.Helper()
	_, err := transferapi.NewTransferClient(a.ClientConnInterface).Transfer(ctx, &transferapi.TransferRequest{Source: anyOf(t, from), Destination: anyOf(t, to)})
	return err
}

// answer answers what is asked on a stream for credentials, until it ends, and gives
// the questions.
func (s clientStream) answer(t *testing.T, with *transfertypes.AuthResponse) <-chan []string {
	asked := make(chan []string, 1)
	go func() {
		var all []string
		defer func() { asked <- all }()
		for {
			m, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Error(err)
				return
			}
			q := ok(typeurl.UnmarshalAny(m))(t).(*transfertypes.AuthRequest)
			all = append(all, q.Host+" "+q.Reference)
			s.put(t, with)
		}
	}()
	return asked
}

// A client's credentials come in four forms, and headers of its own go along.
func TestARegistryIsSpokenToAsTheClientSays(t *testing.T) {
	d := newDaemon(t)
	d.startOurs(t)
	a := d.dial(t)
	for _, tt := range []struct {
		name   string
		with   *transfertypes.AuthResponse
		wanted string // Authorization
		err    bool
	}{
		{"user and password", &transfertypes.AuthResponse{AuthType: transfertypes.AuthType_CREDENTIALS, Username: "u", Secret: "p"}, "Basic dTpw", false},
		{"a refresh token", &transfertypes.AuthResponse{AuthType: transfertypes.AuthType_REFRESH, Secret: "refresh"}, "Bearer of-refresh", false},
		{"the header itself", &transfertypes.AuthResponse{AuthType: transfertypes.AuthType_HEADER, Secret: "Custom 1, 2"}, "Custom 1, 2", false},
		{"none", &transfertypes.AuthResponse{}, "Basic dTpw", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := in(strings.ReplaceAll(tt.name, " ", "-"))
			reg := registrytest.Start(t)
			serveImage(t, reg, "a", ocispec.Platform{OS: "linux", Architecture: "amd64"})
			var mu sync.Mutex
			odd := ""
			reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == "/token" {
					json.NewEncoder(w).Encode(map[string]string{"access_token": "of-" + r.FormValue("refresh_token")})
					return true
				}
				mu.Lock()
				defer mu.Unlock()
				// The first request asks whether the registry speaks HTTP.
				if r.Header.Get("User-Agent") != "tester/1" || r.URL.Path != "/v2/" && r.Header.Get("X-Team") != "one" {
					odd = fmt.Sprintf("%s %s with %v", r.Method, r.URL, r.Header)
				}
				if r.Header.Get("Authorization") == tt.wanted {
					return false
				}
				challenge := `Basic realm="here"`
				if strings.HasPrefix(tt.wanted, "Bearer") {
					challenge = fmt.Sprintf(`Bearer realm="http://%s/token",service="reg"`, reg.Host)
				}
				w.Header().Set("WWW-Authenticate", challenge)
				registrytest.Refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
				return true
			})
			ref := reg.Host + "/a:latest"
			auth := a.stream(t, ctx, "auth")
			asked := auth.answer(t, tt.with)
			err := a.transfer(t, ctx, &transfertypes.OCIRegistry{Reference: ref, Resolver: &transfertypes.RegistryResolver{
				AuthStream: "auth", Headers: map[string]string{"user-agent": "tester/1", "X-Team": "one"},
			}}, &transfertypes.ImageStore{Name: ref})
			if (err != nil) != tt.err {
				t.Errorf("error %v, want one: %t", err, tt.err)
			}
			if got := <-asked; !slices.Equal(got, []string{reg.Host + " " + ref}) {
				t.Errorf("asked for credentials of %q", got)
			}
			mu.Lock()
			defer mu.Unlock()
			if odd != "" {
				t.Error(odd)
			}
		})
	}
}

// Of several platforms that are asked for, an index goes out that has no other.
func TestSeveralPlatformsGoOutAndComeIn(t *testing.T) {
	reg := registrytest.Start(t)
	of := func(arch ...string) (ps []*types.Platform) {
		for _, a := range arch {
			ps = append(ps, &types.Platform{OS: "linux", Architecture: a})
		}
		return ps
	}
	all := []ocispec.Platform{{OS: "linux", Architecture: "amd64"}, {OS: "linux", Architecture: "arm64"}, {OS: "linux", Architecture: "s390x"}}
	whole, chains := serveImage(t, reg, "a", all...)
	d, ctx := newDaemon(t), in("ns")
	d.startOurs(t)
	a, ref := d.dial(t), reg.Host+"/a:latest"
	if err := a.pull(t, ctx, ref, &transfertypes.ImageStore{}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		arch []string
		want []string // of the index that was pushed; nil is no index
	}{
		{[]string{"arm64"}, nil},
		{[]string{"s390x", "amd64"}, []string{"s390x", "amd64"}},
		{[]string{"amd64", "arm64", "s390x"}, []string{"amd64", "arm64", "s390x"}},
		{nil, []string{"amd64", "arm64", "s390x"}},
	} {
		tag := strings.Join(append([]string{"of"}, tt.arch...), "-")
		if err := a.transfer(t, ctx, &transfertypes.ImageStore{Name: ref, Platforms: of(tt.arch...)}, &transfertypes.OCIRegistry{Reference: reg.Host + "/b:" + tag}); err != nil {
			t.Errorf("%v: %v", tt.arch, err)
			continue
		}
		var got []string
		var index ocispec.Index
		if err := json.Unmarshal(reg.Manifest("b", tag), &index); err != nil {
			t.Fatal(err)
		}
		for _, m := range index.Manifests {
			got = append(got, m.Platform.Architecture)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%v went out as %v, want %v", tt.arch, got, tt.want)
		}
		if string(reg.Manifest("b", tag)) == string(reg.Manifest("a", "latest")) != (len(tt.want) == 3) {
			t.Errorf("%v went out as it is (%s): not expected", tt.arch, whole.Digest)
		}
	}
	if err := a.transfer(t, ctx, &transfertypes.ImageStore{Name: ref, Platforms: of("amd64", "riscv64")}, &transfertypes.OCIRegistry{Reference: reg.Host + "/b:none"}); err == nil || !strings.Contains(err.Error(), "riscv64") {
		t.Errorf("a platform that is not there: %v", err)
	}

	to := a.stream(t, ctx, "to")
	exported := make(chan []byte, 1)
	go func() { exported <- to.read(t) }()
	if err := a.transfer(t, ctx, &transfertypes.ImageStore{Name: ref}, &transfertypes.ImageExportStream{Stream: "to", Platforms: of("amd64", "arm64")}); err != nil {
		t.Fatal(err)
	}
	archive := <-exported
	other := in("other")
	from := a.stream(t, other, "from")
	go from.write(t, archive)
	unpack := func(arch, by string) *transfertypes.UnpackConfiguration {
		return &transfertypes.UnpackConfiguration{Platform: of(arch)[0], Snapshotter: by}
	}
	err := a.transfer(t, other, &transfertypes.ImageImportStream{Stream: "from"}, &transfertypes.ImageStore{
		ExtraReferences: refs(&transfertypes.ImageReference{Name: reg.Host, IsPrefix: true}),
		Unpacks:         []*transfertypes.UnpackConfiguration{unpack("amd64", "overlayfs"), unpack("arm64", "native"), unpack("s390x", "native")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if names := ok(a.images.List(other, &imagesapi.ListImagesRequest{}))(t).Images; len(names) != 1 || names[0].Name != ref {
		t.Errorf("imported: %v", names)
	}
	for i, by := range []string{"overlayfs", "native", "native"} {
		if got := a.hasSnapshot(other, by, chains[i]); got != (i < 2) {
			t.Errorf("%s is unpacked by %s: %t", all[i].Architecture, by, got)
		}
	}
}
