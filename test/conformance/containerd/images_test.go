package containerd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/test/rig"
)

// pulledFrom are the registries that the suite pulls from.
var pulledFrom = []string{"ghcr.io", "registry.k8s.io"}

// pulled are the images that the suite pulls, and how many layers they have here
// beyond those of busybox.
var pulled = map[string]int{
	"containerd/busybox:1.36":            1,
	"containerd/volume-ownership:2.1":    1,
	"containerd/volume-copy-up:2.2":      3,
	"pause:3.6":                          1,
	"pause:3.10.2":                       1,
	"e2e-test-images/busybox:1.29-2":     1,
	"containerd/windows/nanoserver:1809": 1,
}

const pulledByDigest = "containerd/busybox:1.36"

// images is a directory with an OCI layout for each name in pulled.
type images string

func newImages(t testing.TB) images {
	t.Helper()
	i := images(rig.Dir(t))
	for name, layers := range pulled {
		if err := i.make(t, name, layers); err != nil {
			t.Fatalf("make image %s: %v", name, err)
		}
	}
	return i
}

func (i images) layout(name string) string {
	return filepath.Join(string(i), strings.NewReplacer("/", "-", ":", "-").Replace(name))
}

func (i images) make(t testing.TB, name string, layers int) error {
	l, err := rig.NewLayout(i.layout(name))
	if err != nil {
		return err
	}
	if err := l.Base(rig.Busybox(t)); err != nil {
		return err
	}
	for n := range layers {
		if err := l.Layer(rig.Tar(append(users, rig.File{Name: "layer", Mode: 0o644, Data: fmt.Appendln(nil, name, n)}))); err != nil {
			return err
		}
	}
	platforms := []ocispec.Platform{
		{OS: "linux", Architecture: "amd64"},
		{OS: "linux", Architecture: "arm64", Variant: "v8"},
		{OS: "linux", Architecture: "s390x"},
		{OS: "linux", Architecture: "ppc64le"},
	}
	if strings.Contains(name, "windows") {
		platforms = []ocispec.Platform{{OS: "windows", Architecture: "amd64"}}
	}
	return l.Platforms(name, ocispec.ImageConfig{Env: []string{"PATH=/bin:/usr/bin"}, Cmd: []string{"sh"}}, platforms...)
}

// users are the files of a larger system that the suite looks for.
var users = []rig.File{
	{Name: "etc/", Mode: 0o755},
	{Name: "etc/passwd", Mode: 0o644, Data: []byte("root:x:0:0:root:/root:/bin/sh\nsys:x:3:3:sys:/dev:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\nbackup:x:34:34:backup:/var/backups:/bin/false\n")},
	{Name: "etc/group", Mode: 0o644, Data: []byte("root:x:0:\nsys:x:3:\nwww-data:x:33:\nbackup:x:34:\n")},
	{Name: "bin/bash", Mode: 0o755, Data: []byte("#!/bin/sh\nexec /bin/sh \"$@\"\n")},
	{Name: "usr/bin/passwd", Mode: 0o4755},
	{Name: "run/", Mode: 0o755},
}

var byDigest = regexp.MustCompile(`busybox@sha256:[0-9a-f]{64}`)

// digest writes the digest of the image that the suite pulls by digest, as it is
// here, into the suite's program: no flag of it reaches there.
func (i images) digest(t testing.TB, program string) {
	t.Helper()
	var index ocispec.Index
	data, err := os.ReadFile(filepath.Join(i.layout(pulledByDigest), "index.json"))
	if err == nil {
		err = json.Unmarshal(data, &index)
	}
	if err == nil {
		data, err = os.ReadFile(program)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !byDigest.Match(data) {
		t.Fatalf("%s names no busybox by digest", program)
	}
	data = byDigest.ReplaceAll(data, []byte("busybox@"+index.Manifests[0].Digest.String()))
	if err := os.WriteFile(program, data, 0o700); err != nil {
		t.Fatal(err)
	}
}

// registries stand in for pulledFrom on the loopback device of a host.
type registries struct {
	hosts string // for /etc/hosts
	ca    string // for SSL_CERT_FILE
}

func startRegistries(t testing.TB, host *rig.Host, img images) registries {
	t.Helper()
	dir := rig.Dir(t)
	r := registries{hosts: filepath.Join(dir, "hosts"), ca: filepath.Join(dir, "cert.pem")}
	writeFile(t, r.hosts, "127.0.0.1 localhost "+strings.Join(pulledFrom, " ")+"\n")
	key := filepath.Join(dir, "key.pem")
	certificate(t, r.ca, key)
	config := filepath.Join(dir, "config.yml")
	writeFile(t, config, fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %q}}\nhttp: {addr: \"127.0.0.1:443\", tls: {certificate: %q, key: %q}}\n",
		filepath.Join(dir, "data"), r.ca, key))
	rig.Start(t, filepath.Join(dir, "registry.log"), host.Command(rig.Peer(t, "docker-registry"), "serve", config))
	rig.Eventually(t, func() error {
		return host.Command("curl", "-skf", "-o", "/dev/null", "https://127.0.0.1/v2/").Run()
	})
	for name := range pulled {
		rig.Must(t, host.Command(rig.Peer(t, "skopeo"), "copy", "-q", "--all", "--insecure-policy", "--dest-tls-verify=false",
			"oci:"+img.layout(name), "docker://127.0.0.1:443/"+name))
	}
	return r
}

// certificate makes a key and a certificate for pulledFrom that signs itself.
func certificate(t testing.TB, cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gantry test rig"}, DNSNames: pulledFrom,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	signed, err := x509.CreateCertificate(rand.Reader, about, about, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})))
	writeFile(t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
}

func writeFile(t testing.TB, file, data string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}
