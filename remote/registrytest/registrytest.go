// Package registrytest is a registry in this process for tests: it speaks
// distribution-spec 1.1 as far as clients pull and push, keeps everything in
// memory, and lets a test answer in its place, to break, stall and lie.
package registrytest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Registry is a running registry.
type Registry struct {
	Host string // host:port, as in references

	mu        sync.Mutex
	repos     map[string]*repo
	uploads   map[string]*bytes.Buffer
	begun     int // uploads so far
	log       []string
	intercept func(http.ResponseWriter, *http.Request) bool
}

type repo struct {
	blobs     map[digest.Digest][]byte
	manifests map[string]manifest // by tag and by digest
}

type manifest struct {
	mediaType string
	data      []byte
}

// Start starts a registry on loopback; it ends with the test.
func Start(t testing.TB) *Registry {
	t.Helper()
	r := &Registry{repos: map[string]*repo{}, uploads: map[string]*bytes.Buffer{}}
	server := httptest.NewServer(r)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	r.Host = strings.TrimPrefix(server.URL, "http://")
	return r
}

// Intercept has fn see every request first; where fn gives true it has answered.
// nil ends it.
func (r *Registry) Intercept(fn func(http.ResponseWriter, *http.Request) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.intercept = fn
}

// Log lists the requests so far, "METHOD /path?query [range]".
func (r *Registry) Log() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.log...)
}

// Sessions is how many uploads were begun and neither finished nor ended.
func (r *Registry) Sessions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.uploads)
}

func (r *Registry) repo(name string) *repo {
	if r.repos[name] == nil {
		r.repos[name] = &repo{blobs: map[digest.Digest][]byte{}, manifests: map[string]manifest{}}
	}
	return r.repos[name]
}

// PutBlob puts a blob into a repository and describes it.
func (r *Registry) PutBlob(name, mediaType string, data []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.SetBlob(name, desc.Digest, data)
	return desc
}

// SetBlob puts data under a digest that need not be its own.
func (r *Registry) SetBlob(name string, dgst digest.Digest, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repo(name).blobs[dgst] = data
}

// PutManifest puts a document, as JSON, under its digest and under tag, if there is one.
func (r *Registry) PutManifest(name, tag, mediaType string, v any) ocispec.Descriptor {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // a test's own literal
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(data), Size: int64(len(data))}
	r.repo(name).manifests[desc.Digest.String()] = manifest{mediaType, data}
	if tag != "" {
		r.repo(name).manifests[tag] = manifest{mediaType, data}
	}
	return desc
}

// Blob gives a blob of a repository, nil if it has none.
func (r *Registry) Blob(name string, dgst digest.Digest) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.repo(name).blobs[dgst]
}

// Manifest gives a document by tag or digest, nil if there is none.
func (r *Registry) Manifest(name, ref string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.repo(name).manifests[ref].data
}

var (
	blobPath     = regexp.MustCompile(`^/v2/(.+)/blobs/(sha\d+:[0-9a-f]+)$`)
	uploadPath   = regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([0-9a-z]*)$`)
	manifestPath = regexp.MustCompile(`^/v2/(.+)/manifests/([^/]+)$`)
	tagsPath     = regexp.MustCompile(`^/v2/(.+)/tags/list$`)
)

func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	line := req.Method + " " + req.URL.RequestURI()
	if rng := req.Header.Get("Range"); rng != "" {
		line += " " + rng
	}
	r.mu.Lock()
	r.log = append(r.log, line)
	intercept := r.intercept
	r.mu.Unlock()
	if intercept != nil && intercept(w, req) {
		return
	}
	if req.URL.Path == "/v2/" {
		return
	}
	if m := uploadPath.FindStringSubmatch(req.URL.Path); m != nil {
		r.upload(w, req, m[1], m[2])
	} else if m := blobPath.FindStringSubmatch(req.URL.Path); m != nil {
		r.blob(w, req, m[1], digest.Digest(m[2]))
	} else if m := manifestPath.FindStringSubmatch(req.URL.Path); m != nil {
		r.manifest(w, req, m[1], m[2])
	} else if m := tagsPath.FindStringSubmatch(req.URL.Path); m != nil {
		r.tags(w, req, m[1])
	} else {
		Refuse(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint")
	}
}

// Refuse answers with an error of distribution-spec.
func Refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, message)
}

func (r *Registry) blob(w http.ResponseWriter, req *http.Request, name string, dgst digest.Digest) {
	data := r.Blob(name, dgst)
	if data == nil {
		Refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "blob unknown to registry")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", dgst.String())
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(data))
}

func (r *Registry) manifest(w http.ResponseWriter, req *http.Request, name, ref string) {
	if req.Method == http.MethodPut {
		r.putManifest(w, req, name, ref)
		return
	}
	r.mu.Lock()
	m, ok := r.repo(name).manifests[ref]
	r.mu.Unlock()
	if !ok {
		Refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", "manifest unknown")
		return
	}
	w.Header().Set("Content-Type", m.mediaType)
	w.Header().Set("Docker-Content-Digest", digest.FromBytes(m.data).String())
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(m.data))
}

// putManifest takes only what has all its parts, as real registries do.
func (r *Registry) putManifest(w http.ResponseWriter, req *http.Request, name, ref string) {
	data, err := io.ReadAll(req.Body)
	var doc struct {
		Config    ocispec.Descriptor
		Layers    []ocispec.Descriptor
		Manifests []ocispec.Descriptor
	}
	if err == nil {
		err = json.Unmarshal(data, &doc)
	}
	if err != nil {
		Refuse(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	dgst := digest.FromBytes(data)
	if strings.Contains(ref, ":") && ref != dgst.String() {
		Refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "digest does not match")
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	have := r.repo(name)
	parts := doc.Layers
	if doc.Config.Digest != "" {
		parts = append(parts, doc.Config)
	}
	for _, d := range parts {
		if have.blobs[d.Digest] == nil {
			Refuse(w, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "blob unknown to registry: "+d.Digest.String())
			return
		}
	}
	for _, d := range doc.Manifests {
		if have.manifests[d.Digest.String()].data == nil {
			Refuse(w, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", "manifest unknown to registry: "+d.Digest.String())
			return
		}
	}
	m := manifest{req.Header.Get("Content-Type"), data}
	have.manifests[ref], have.manifests[dgst.String()] = m, m
	w.Header().Set("Docker-Content-Digest", dgst.String())
	w.WriteHeader(http.StatusCreated)
}

func (r *Registry) tags(w http.ResponseWriter, _ *http.Request, name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	tags := []string{}
	for ref := range r.repo(name).manifests {
		if !strings.Contains(ref, ":") {
			tags = append(tags, ref)
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"name": name, "tags": tags})
}

// upload serves the requests of a push, and the mount.
func (r *Registry) upload(w http.ResponseWriter, req *http.Request, name, id string) {
	data, err := io.ReadAll(req.Body) // not under the lock: the client may stall
	r.mu.Lock()
	defer r.mu.Unlock()
	query := req.URL.Query()
	if req.Method == http.MethodPost {
		r.begin(w, name, digest.Digest(query.Get("mount")), query.Get("from"))
		return
	}
	session := r.uploads[id]
	if session == nil || query.Get("state") != "1" {
		Refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "blob upload unknown to registry")
		return
	}
	session.Write(data)
	switch {
	case err != nil || req.Method == http.MethodDelete:
		delete(r.uploads, id)
	case req.Method == http.MethodPatch:
		w.Header().Set("Location", req.URL.RequestURI())
		w.Header().Set("Range", fmt.Sprintf("0-%d", session.Len()-1))
		w.WriteHeader(http.StatusAccepted)
	case req.Method == http.MethodPut:
		delete(r.uploads, id)
		dgst := digest.Digest(query.Get("digest"))
		if digest.FromBytes(session.Bytes()) != dgst {
			Refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "provided digest did not match uploaded content")
			return
		}
		r.repo(name).blobs[dgst] = session.Bytes()
		w.Header().Set("Docker-Content-Digest", dgst.String())
		w.WriteHeader(http.StatusCreated)
	}
}

func (r *Registry) begin(w http.ResponseWriter, name string, mount digest.Digest, from string) {
	if data := r.repo(from).blobs[mount]; data != nil {
		r.repo(name).blobs[mount] = data
		w.WriteHeader(http.StatusCreated)
		return
	}
	r.begun++ // of two at once, len(r.log) would be the same
	id := fmt.Sprint("u", r.begun)
	r.uploads[id] = &bytes.Buffer{}
	w.Header().Set("Location", "/v2/"+name+"/blobs/uploads/"+id+"?state=1")
	w.WriteHeader(http.StatusAccepted)
}
