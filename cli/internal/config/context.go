package config

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

// DefaultContext is the context that is no file: the default address or DOCKER_HOST.
const DefaultContext = "default"

// Context is a named daemon, as `docker context create` keeps it in
// contexts/meta/<sha256 of the name>/meta.json.
type Context struct {
	Name      string
	Metadata  json.RawMessage
	Endpoints map[string]ContextEndpoint
	dir       string // of config.json
}

// ContextEndpoint is where a context's daemon is.
type ContextEndpoint struct {
	Host          string `json:",omitempty"`
	SkipTLSVerify bool
}

// ReadContext finds a context by its name.
func ReadContext(dir, name string) (Context, error) {
	data, err := os.ReadFile(filepath.Join(dir, "contexts", "meta", contextID(name), "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Context{}, fmt.Errorf("context %q: context not found: open %s: no such file or directory",
			name, filepath.Join(dir, "contexts", "meta", contextID(name), "meta.json"))
	}
	if err != nil {
		return Context{}, err
	}
	c := Context{dir: dir}
	if err := json.Unmarshal(data, &c); err != nil {
		return Context{}, fmt.Errorf("read context %q: %w", name, err)
	}
	return c, nil
}

// Contexts lists the contexts in dir by name.
func Contexts(dir string) ([]Context, error) {
	names, err := filepath.Glob(filepath.Join(dir, "contexts", "meta", "*", "meta.json"))
	if err != nil {
		return nil, err
	}
	var list []Context
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		c := Context{dir: dir}
		if err := json.Unmarshal(data, &c); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		list = append(list, c)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list, nil
}

// Host is the address of the context's daemon.
func (c Context) Host() string { return c.Endpoints["docker"].Host }

// Description is what the user said of the context.
func (c Context) Description() string {
	var m struct{ Description string }
	if json.Unmarshal(c.Metadata, &m) != nil {
		return ""
	}
	return m.Description
}

// MetaDir and TLSDir are where the context is kept.
func (c Context) MetaDir() string {
	return filepath.Join(c.dir, "contexts", "meta", contextID(c.Name))
}

// TLSDir holds the context's certificates, one folder per endpoint.
func (c Context) TLSDir() string {
	return filepath.Join(c.dir, "contexts", "tls", contextID(c.Name))
}

// TLS gives the files of the context's certificates; ok says whether it has any.
func (c Context) TLS() (t TLS, ok bool) {
	dir := filepath.Join(c.TLSDir(), "docker")
	t = TLS{
		CA: filepath.Join(dir, "ca.pem"), Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"),
		Verify: !c.Endpoints["docker"].SkipTLSVerify,
	}
	_, err := os.Stat(dir)
	return t, err == nil
}

func contextID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// TLS names the certificates of a connection.
type TLS struct {
	CA, Cert, Key string
	Verify        bool
}

// Config reads the files. A client certificate that is not there is not used.
func (t TLS) Config() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: !t.Verify}
	if t.Verify {
		pem, err := os.ReadFile(t.CA)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("read CA certificate: %w", err)
		}
		if err == nil {
			c.RootCAs = x509.NewCertPool()
			if !c.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("read CA certificate %s: no certificate in it", t.CA)
			}
		}
	}
	_, certErr := os.Stat(t.Cert)
	_, keyErr := os.Stat(t.Key)
	if errors.Is(certErr, fs.ErrNotExist) && errors.Is(keyErr, fs.ErrNotExist) {
		return c, nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("read client certificate: %w", err)
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}
