package lifecycle_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote/registrytest"
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

// current builds programs of the containerd that test/peers pins.
func current(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	args := []string{"build", "-o", dir + "/"}
	for _, name := range names {
		args = append(args, "github.com/containerd/containerd/v2/cmd/"+name)
	}
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Env = "../test/peers", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return dir
}

// Ctr gives its user's credentials on a stream, when lifecycle asks for them, as
// containerd does.
func TestCredentialsOfTheClientReachTheRegistry(t *testing.T) {
	bin := current(t, "ctr", "containerd")
	for name, start := range map[string]func(t *testing.T, d daemon){
		"lifecycle":  func(t *testing.T, d daemon) { d.startOurs(t) },
		"containerd": func(t *testing.T, d daemon) { d.startStock(t, filepath.Join(bin, "containerd")) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t)
			start(t, d)
			ctr := func(args ...string) ([]byte, error) {
				return exec.Command(filepath.Join(bin, "ctr"), append([]string{"-a", d.address, "images"}, args...)...).CombinedOutput()
			}
			for name, gate := range gates {
				t.Run(name, func(t *testing.T) {
					reg := registrytest.Start(t)
					serveImage(t, reg, "a", ocispec.Platform{OS: "linux", Architecture: "amd64"})
					reg.Intercept(gate(reg))
					ref, again := reg.Host+"/a:latest", reg.Host+"/a:again"
					if out, err := ctr("pull", "--plain-http", "--user", someUser+":wrong", ref); err == nil {
						t.Errorf("with a wrong password: %s", out)
					}
					if out, err := ctr("pull", "--plain-http", ref); err == nil {
						t.Errorf("without a password: %s", out)
					}
					as := someUser + ":" + somePassword
					for _, args := range [][]string{
						{"pull", "--plain-http", "--user", as, ref},
						{"tag", ref, again},
						{"push", "--plain-http", "--user", as, again},
						{"rm", "--sync", ref, again},
					} {
						if out, err := ctr(args...); err != nil {
							t.Fatalf("%v: %v: %s", args, err, out)
						}
					}
					if string(reg.Manifest("a", "again")) != string(reg.Manifest("a", "latest")) {
						t.Error("what was pushed is not what was pulled")
					}
				})
			}
		})
	}
}
