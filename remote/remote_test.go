package remote_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/remote"
	"github.com/gantryd/gantry/remote/registrytest"
)

// manifest is any document.
var manifest = map[string]any{"schemaVersion": 2}

func client(cred remote.Credential, change ...func(*remote.Config)) *remote.Client {
	cfg := remote.Config{
		Stall: 300 * time.Millisecond, Retries: 2, Backoff: time.Millisecond,
		Credentials: func(context.Context, string) (remote.Credential, error) { return cred, nil },
	}
	for _, c := range change {
		c(&cfg)
	}
	return remote.New(cfg)
}

func name(t *testing.T, s string) reference.Named {
	t.Helper()
	n, err := remote.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// tokens is a token service that knows one user, and refuses the repository
// "secret" to everybody else.
func tokens(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, secret, ok := r.BasicAuth()
		if r.Method == http.MethodPost {
			ok = r.FormValue("refresh_token") == "identity"
			user, secret = "alice", "wonder"
			if !ok {
				user = "nobody"
			}
		}
		if ok && (user != "alice" || secret != "wonder") || r.Method == http.MethodPost && !ok {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"details":"incorrect username or password"}`)
			return
		}
		if r.FormValue("service") != "reg" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if user == "" {
			user = "anonymous"
		}
		fmt.Fprintf(w, `{"token":%q}`, user+"|"+r.FormValue("scope"))
	}))
	t.Cleanup(s.Close)
	return s
}

// guarded wants a token of realm for everything.
func guarded(t *testing.T, realm string) *registrytest.Registry {
	t.Helper()
	reg := registrytest.Start(t)
	reg.PutManifest("open", "1", ocispec.MediaTypeImageManifest, manifest)
	reg.PutManifest("secret", "1", ocispec.MediaTypeImageManifest, manifest)
	reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		auth := r.Header.Get("Authorization")
		repo := strings.Split(r.URL.Path+"//", "/")[2]
		if auth == "Bearer alice|repository:"+repo+":pull" || auth == "Bearer anonymous|repository:"+repo+":pull" && repo == "open" {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="reg",scope="repository:%s:pull"`, realm, repo))
		registrytest.Refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return true
	})
	return reg
}

func TestBearerTokens(t *testing.T) {
	for _, tt := range []struct {
		name string
		repo string
		cred remote.Credential
		kind func(error) bool // nil: it works
		says string
	}{
		{"anonymous reads what is open", "open", remote.Credential{}, nil, ""},
		{"anonymous does not read what is secret", "secret", remote.Credential{}, errdefs.IsUnauthorized, "authentication required (401)"},
		{"a user does", "secret", remote.Credential{User: "alice", Secret: "wonder"}, nil, ""},
		{"an identity token does", "secret", remote.Credential{Secret: "identity"}, nil, ""},
		{"a wrong password is refused", "secret", remote.Credential{User: "alice", Secret: "guess"}, errdefs.IsUnauthorized, "incorrect username or password (401)"},
		{"a wrong identity token is refused", "secret", remote.Credential{Secret: "guess"}, errdefs.IsUnauthorized, "incorrect username or password (401)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reg := guarded(t, tokens(t).URL)
			_, err := client(tt.cred).Resolve(t.Context(), name(t, reg.Host+"/"+tt.repo+":1"))
			if tt.kind == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !tt.kind(err) || !strings.Contains(err.Error(), tt.says) || !strings.Contains(err.Error(), reg.Host) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error is %v", err)
			}
			if tt.cred.Secret != "" && strings.Contains(err.Error(), tt.cred.Secret) {
				t.Errorf("error tells the secret: %v", err)
			}
		})
	}
}

func TestATokenIsAskedForOnce(t *testing.T) {
	reg := guarded(t, tokens(t).URL)
	c := client(remote.Credential{User: "alice", Secret: "wonder"})
	for range 3 {
		if _, err := c.Resolve(t.Context(), name(t, reg.Host+"/secret:1")); err != nil {
			t.Fatal(err)
		}
	}
	// To find out the scheme, the first without a token, and three with one.
	if log := reg.Log(); len(log) != 5 {
		t.Errorf("requests are %q", log)
	}
}

func TestBasicAuthentication(t *testing.T) {
	reg := registrytest.Start(t)
	reg.PutManifest("a", "1", ocispec.MediaTypeImageManifest, manifest)
	want := "Basic " + base64.StdEncoding.EncodeToString([]byte("alice:wonder"))
	reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == want {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
		registrytest.Refuse(w, http.StatusUnauthorized, "UNAUTHORIZED", "authentication required")
		return true
	})
	ref := name(t, reg.Host+"/a:1")
	if _, err := client(remote.Credential{User: "alice", Secret: "wonder"}).Resolve(t.Context(), ref); err != nil {
		t.Error(err)
	}
	if _, err := client(remote.Credential{User: "alice", Secret: "guess"}).Resolve(t.Context(), ref); !errdefs.IsUnauthorized(err) {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := client(remote.Credential{}).Resolve(t.Context(), ref); !errdefs.IsUnauthorized(err) {
		t.Errorf("no password: %v", err)
	}
	if err := client(remote.Credential{User: "alice", Secret: "wonder"}).Ping(t.Context(), reg.Host); err != nil {
		t.Errorf("ping: %v", err)
	}
	if err := client(remote.Credential{User: "alice", Secret: "guess"}).Ping(t.Context(), reg.Host); !errdefs.IsUnauthorized(err) {
		t.Errorf("ping with a wrong password: %v", err)
	}
}

// A blob may be on another server; it must not learn the credential.
func TestARedirectGetsNoCredential(t *testing.T) {
	data := []byte("the blob")
	var got []string
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		w.Write(data)
	}))
	defer elsewhere.Close()
	// Another name for this machine: net/http takes the header along to the same host.
	other := strings.Replace(elsewhere.URL, "127.0.0.1", "localhost", 1)
	reg := registrytest.Start(t)
	desc := reg.PutBlob("a", "application/octet-stream", data)
	reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/v2/":
			return false
		case r.Header.Get("Authorization") == "":
			w.Header().Set("WWW-Authenticate", `Basic realm="here"`)
			w.WriteHeader(http.StatusUnauthorized)
		default:
			http.Redirect(w, r, other+"/x?signature=s3cret", http.StatusTemporaryRedirect)
		}
		return true
	})
	r, err := client(remote.Credential{User: "alice", Secret: "wonder"}).Fetch(t.Context(), name(t, reg.Host+"/a:1"), desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if b, err := io.ReadAll(r); err != nil || string(b) != string(data) {
		t.Errorf("read %q, %v", b, err)
	}
	if len(got) != 1 || got[0] != "" {
		t.Errorf("the other server got %q", got)
	}
}

func TestARegistryThatIsNotThere(t *testing.T) {
	_, err := client(remote.Credential{}).Resolve(t.Context(), name(t, "127.0.0.1:1/a:1"))
	if !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v", err)
	}
}

func TestTooManyRequestsAreTriedAgain(t *testing.T) {
	reg := registrytest.Start(t)
	reg.PutManifest("a", "1", ocispec.MediaTypeImageManifest, manifest)
	n := 0
	reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			return false
		}
		if n++; n > 2 {
			return false
		}
		registrytest.Refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "slow down")
		return true
	})
	if _, err := client(remote.Credential{}).Resolve(t.Context(), name(t, reg.Host+"/a:1")); err != nil {
		t.Error(err)
	}
}

func TestARegistryIsLeftAloneAsLongAsItAsks(t *testing.T) {
	reg := registrytest.Start(t)
	reg.PutManifest("a", "1", ocispec.MediaTypeImageManifest, manifest)
	for _, tt := range []struct {
		name, after string
		asked       int // times
		waited      time.Duration
		says        string
	}{
		{"a second", "1", 2, time.Second, ""},
		{"a date that is over", "Mon, 02 Jan 2006 15:04:05 GMT", 2, 0, ""},
		{"no number", "soon", 2, 0, ""},
		{"an hour", "3600", 1, 0, "slow down (429); the registry wants to be asked again in 1h0m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := 0
			reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method != http.MethodGet || r.URL.Path == "/v2/" {
					return false
				}
				if n++; n > 1 {
					return false
				}
				w.Header().Set("Retry-After", tt.after)
				registrytest.Refuse(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "slow down")
				return true
			})
			ref := name(t, reg.Host+"/a:1")
			desc, err := client(remote.Credential{}).Resolve(t.Context(), ref)
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			_, err = client(remote.Credential{}).Manifest(t.Context(), ref, desc)
			if tt.says == "" && err != nil || tt.says != "" && (!errdefs.IsResourceExhausted(err) || !strings.HasSuffix(err.Error(), tt.says)) {
				t.Errorf("error is %v, want %q", err, tt.says)
			}
			if n != tt.asked || time.Since(start) < tt.waited {
				t.Errorf("asked %d times in %s, want %d in %s at least", n, time.Since(start), tt.asked, tt.waited)
			}
		})
	}
}

func TestAManifestThatBreaksOffIsReadAgain(t *testing.T) {
	reg := registrytest.Start(t)
	reg.PutManifest("a", "1", ocispec.MediaTypeImageManifest, manifest)
	ref := name(t, reg.Host+"/a:1")
	desc, err := client(remote.Credential{}).Resolve(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		end  func(*http.Request)
	}{
		{"it resets", func(*http.Request) { panic(http.ErrAbortHandler) }},
		{"it stalls", func(r *http.Request) { <-r.Context().Done() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, broken := range []int{1, 100} {
				var n atomic.Int32
				reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
					if !strings.Contains(r.URL.Path, "/manifests/") || int(n.Add(1)) > broken {
						return false
					}
					w.Header().Set("Content-Length", fmt.Sprint(desc.Size))
					fmt.Fprint(w, "{")
					w.(http.Flusher).Flush()
					tt.end(r)
					return true
				})
				_, err := client(remote.Credential{}).Manifest(t.Context(), ref, desc)
				if broken == 1 && err != nil || broken > 1 && (!errdefs.IsUnavailable(err) || n.Load() != 3) {
					t.Errorf("broken %d times: %v, after %d requests", broken, err, n.Load())
				}
			}
		})
	}
}

func TestABlobGoesOnAtTheNextHostWhereAMirrorBreaks(t *testing.T) {
	origin, mirror := registrytest.Start(t), registrytest.Start(t)
	data := bytes.Repeat([]byte("0123456789"), 1000)
	desc := origin.PutBlob("a", ocispec.MediaTypeImageLayer, data)
	mirror.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/v2/" {
			return false
		}
		if r.Header.Get("Range") == "" {
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			w.Write(data[:4000])
			w.(http.Flusher).Flush()
		}
		panic(http.ErrAbortHandler)
	})
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, origin.Host), 0o755); err != nil {
		t.Fatal(err)
	}
	hosts := fmt.Sprintf("[host.%q]\ncapabilities = [\"pull\"]\n", "http://"+mirror.Host)
	if err := os.WriteFile(filepath.Join(dir, origin.Host, "hosts.toml"), []byte(hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	c := client(remote.Credential{}, func(cfg *remote.Config) { cfg.HostsDir = dir })
	r, err := c.Fetch(t.Context(), name(t, origin.Host+"/a:1"), desc, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, %v; want %d", len(got), err, len(data))
	}
	if log := strings.Join(origin.Log(), "\n"); !strings.Contains(log, "bytes=4000-") {
		t.Errorf("the registry itself was asked %q", log)
	}
}

func TestTags(t *testing.T) {
	reg := registrytest.Start(t)
	reg.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/v2/a/tags/list" {
			return false
		}
		if r.URL.Query().Get("last") == "" {
			w.Header().Set("Link", `</v2/a/tags/list?n=1&last=one>; rel="next"`)
			fmt.Fprint(w, `{"name":"a","tags":["one"]}`)
		} else {
			fmt.Fprint(w, `{"name":"a","tags":["two"]}`)
		}
		return true
	})
	tags, err := client(remote.Credential{}).Tags(t.Context(), name(t, reg.Host+"/a"))
	if err != nil || fmt.Sprint(tags) != "[one two]" {
		t.Errorf("tags are %v, %v", tags, err)
	}
}

func TestHostsOfAFile(t *testing.T) {
	origin, mirror := registrytest.Start(t), registrytest.Start(t)
	origin.PutManifest("a", "1", ocispec.MediaTypeImageManifest, manifest)
	desc := origin.PutBlob("a", "application/octet-stream", []byte("blob"))
	mirror.PutBlob("a", "application/octet-stream", []byte("blob"))
	hosts := t.TempDir()
	write := func(text string) {
		dir := filepath.Join(hosts, strings.Replace(origin.Host, ":", "_", 1)+"_")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "hosts.toml"), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	c := client(remote.Credential{}, func(cfg *remote.Config) { cfg.HostsDir = hosts })
	ref := name(t, origin.Host+"/a:1")
	fetch := func() error {
		r, err := c.Fetch(t.Context(), ref, desc, 0)
		if err != nil {
			return err
		}
		defer r.Close()
		_, err = io.ReadAll(r)
		return err
	}
	write(fmt.Sprintf(`[host."http://127.0.0.1:1"]
capabilities = ["pull"]
[host."http://%s"]
capabilities = ["pull"]
[host."http://%s".header]
x-mine = ["yes"]
`, mirror.Host, mirror.Host))
	var header string
	mirror.Intercept(func(_ http.ResponseWriter, r *http.Request) bool { header = r.Header.Get("X-Mine"); return false })
	if err := fetch(); err != nil {
		t.Fatal(err)
	}
	if log := mirror.Log(); len(log) != 1 || !strings.Contains(log[0], "ns=") || header != "yes" || len(origin.Log()) != 0 {
		t.Errorf("the mirror was asked %q with header %q, the registry %q", log, header, origin.Log())
	}
	// A mirror that may not resolve is not asked what a tag is.
	if _, err := c.Resolve(t.Context(), ref); err != nil {
		t.Error(err)
	}
	if len(mirror.Log()) != 1 {
		t.Errorf("the mirror was asked %q", mirror.Log())
	}
	// What a mirror does not have, the registry does.
	mirror.SetBlob("a", desc.Digest, nil)
	if err := fetch(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{`server = 5`, `[host."ftp://x"]`, `[host."https://x"]` + "\n" + `capabilities = ["fly"]`, `[host."https://x"]` + "\n" + `ca = 5`} {
		write(bad)
		if err := fetch(); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "hosts.toml") {
			t.Errorf("with %q: %v", bad, err)
		}
	}
}
