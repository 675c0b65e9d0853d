package joint

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote/registrytest"
	"github.com/gantryd/gantry/test/rig"
)

// The user of the registries here.
const (
	someUser     = "somebody"
	somePassword = "pass:word"
)

// gates are the ways by which a registry knows who asks.
var gates = map[string]func(reg *registrytest.Registry) func(http.ResponseWriter, *http.Request) bool{
	"basic": func(*registrytest.Registry) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if isSomebody(r) {
				return false
			}
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			registrytest.Refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
			return true
		}
	},
	"token": func(reg *registrytest.Registry) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			switch {
			case r.URL.Path == "/token":
				giveToken(w, r)
				return true
			case r.Header.Get("Authorization") == "Bearer for-somebody":
				return false
			}
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="reg",scope="repository:a:pull,push"`, reg.Host))
			registrytest.Refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
			return true
		}
	},
}

func isSomebody(r *http.Request) bool {
	user, password, ok := r.BasicAuth()
	return ok && user == someUser && password == somePassword
}

// giveToken is a token service, in its form of GET and in that of OAuth 2.
func giveToken(w http.ResponseWriter, r *http.Request) {
	form := r.FormValue("grant_type") == "password" && r.FormValue("username") == someUser && r.FormValue("password") == somePassword
	if !isSomebody(r) && !form {
		registrytest.Refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "who are you?")
		return
	}
	json.NewEncoder(w).Encode(map[string]string{"token": "for-somebody", "access_token": "for-somebody"})
}

// Ctr gives its user's credentials on a stream, when lifecycle asks for them, as
// containerd does.
func TestCredentialsOfTheClientReachTheRegistry(t *testing.T) {
	bin := current(t, "ctr", "containerd")
	host := rig.Here(t)
	for _, daemon := range []struct {
		name  string
		start func(t *testing.T) (address string)
	}{
		{"lifecycle", func(t *testing.T) string { return rig.StartGantryd(t, host, "--roles", "lifecycle").ContainerdAddress }},
		{"containerd", func(t *testing.T) string {
			c := rig.StartContainerd(t, host)
			c.Stop() // only its configuration is wanted
			startCurrent(t, host, c, bin)
			return c.Address
		}},
	} {
		t.Run(daemon.name, func(t *testing.T) {
			u := ctrUser{host: host, address: daemon.start(t), ctr: filepath.Join(bin, "ctr")}
			for name, gate := range gates {
				t.Run(name, func(t *testing.T) {
					reg := registrytest.Start(t)
					layer := []byte(strings.Repeat("\x00", 1024)) // a tar of no file
					config, err := json.Marshal(ocispec.Image{
						Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"},
						RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
					})
					if err != nil {
						t.Fatal(err)
					}
					m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: reg.PutBlob("a", ocispec.MediaTypeImageConfig, config)}
					m.SchemaVersion, m.Layers = 2, []ocispec.Descriptor{reg.PutBlob("a", ocispec.MediaTypeImageLayer, layer)}
					reg.PutManifest("a", "1", m.MediaType, m)
					reg.Intercept(gate(reg))
					ref := reg.Host + "/a:1"
					if r := rig.Run(t, u.cmd(t, "images", "pull", "--plain-http", "--user", someUser+":wrong", ref)); r.Code == 0 {
						t.Errorf("with a wrong password: %s", r.Stdout)
					}
					if r := rig.Run(t, u.cmd(t, "images", "pull", "--plain-http", ref)); r.Code == 0 {
						t.Errorf("without a password: %s", r.Stdout)
					}
					as := someUser + ":" + somePassword
					u.must(t, "images", "pull", "--plain-http", "--user", as, ref)
					u.must(t, "images", "tag", ref, reg.Host+"/a:2")
					u.must(t, "images", "push", "--plain-http", "--user", as, reg.Host+"/a:2")
					if reg.Manifest("a", "2") == nil {
						t.Error("the registry has not got what was pushed")
					}
					u.must(t, "images", "rm", "--sync", ref, reg.Host+"/a:2")
				})
			}
		})
	}
}
