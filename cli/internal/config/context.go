package config

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/gantryd/gantry/internal/atomicfile"
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

// NewContext is a context that is to be made.
type NewContext struct {
	Name, Description, Host string
	SkipTLSVerify           bool
	ca, cert, key           string // files to copy
}

// ParseEndpoint reads KEY=VALUE[,KEY=VALUE…].
func ParseEndpoint(s string) (map[string]string, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return nil, err
	}
	m := map[string]string{}
	for _, f := range fields {
		k, v, ok := strings.Cut(f, "=")
		if !ok {
			return nil, fmt.Errorf("%s must be formatted as key=value", f)
		}
		m[k] = v
	}
	return m, nil
}

// Set takes the fields of --docker.
func (n *NewContext) Set(endpoint map[string]string) error {
	for k, v := range endpoint {
		switch k {
		case "host":
			n.Host = v
		case "ca":
			n.ca = v
		case "cert":
			n.cert = v
		case "key":
			n.key = v
		case "skip-tls-verify":
			skip, err := strconv.ParseBool(v)
			if err != nil {
				return fmt.Errorf("skip-tls-verify: %w", err)
			}
			n.SkipTLSVerify = skip
		case "from": // the caller has read it
		default:
			return fmt.Errorf("unrecognized docker endpoint config key: %q", k)
		}
	}
	return nil
}

// Write makes the context's files in dir, the directory of config.json.
func (n *NewContext) Write(dir string) error {
	if len(n.Name) < 2 || n.Name == DefaultContext || strings.Trim(n.Name, nameChars) != "" || !strings.Contains(nameChars[:62], n.Name[:1]) {
		return fmt.Errorf("context name %q is invalid, names are validated against regexp \"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$\"", n.Name)
	}
	if _, err := ReadContext(dir, n.Name); err == nil {
		return fmt.Errorf("context %q already exists", n.Name)
	}
	c := Context{
		Name: n.Name, Metadata: json.RawMessage("{}"), dir: dir,
		Endpoints: map[string]ContextEndpoint{"docker": {Host: n.Host, SkipTLSVerify: n.SkipTLSVerify}},
	}
	if n.Description != "" {
		var err error
		if c.Metadata, err = json.Marshal(map[string]string{"Description": n.Description}); err != nil {
			return err
		}
	}
	data, err := json.Marshal(c)
	if err != nil {
		return err
	}
	for _, f := range []struct{ from, to string }{{n.ca, "ca.pem"}, {n.cert, "cert.pem"}, {n.key, "key.pem"}} {
		if f.from == "" {
			continue
		}
		pem, err := os.ReadFile(f.from)
		if err == nil {
			err = writeFile(filepath.Join(c.TLSDir(), "docker", f.to), pem, 0o600)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("copy %s: %w", f.to, err), os.RemoveAll(c.TLSDir()))
		}
	}
	return writeFile(filepath.Join(c.MetaDir(), "meta.json"), data, 0o644)
}

// nameChars are the characters of a context's name; it begins with one of the first 62.
const nameChars = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.+-"

func writeFile(name string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(name, data, mode)
}

// Remove deletes the context's files.
func (c Context) Remove() error {
	return errors.Join(os.RemoveAll(c.MetaDir()), os.RemoveAll(c.TLSDir()))
}

// TLSFiles names the certificates of each endpoint.
func (c Context) TLSFiles() (map[string][]string, error) {
	files := map[string][]string{}
	names, err := filepath.Glob(filepath.Join(c.TLSDir(), "*", "*.pem"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		endpoint := filepath.Base(filepath.Dir(name))
		files[endpoint] = append(files[endpoint], filepath.Base(name))
	}
	return files, nil
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
