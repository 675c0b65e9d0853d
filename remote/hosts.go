package remote

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/pelletier/go-toml/v2"
)

// hostsFile is containerd's hosts.toml (docs/hosts.md there).
type hostsFile struct {
	Server string              `toml:"server"`
	Host   map[string]hostFile `toml:"host"`
	hostFile
}

// hostFile is what it says of one host. CA, Client and the values of Header are a
// string, or a list of them.
type hostFile struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   bool           `toml:"skip_verify"`
	OverridePath bool           `toml:"override_path"`
	Header       map[string]any `toml:"header"`
}

// configured gives the endpoints of HOST/hosts.toml, origin last.
func (c *Client) configured(registry string, origin endpoint) ([]endpoint, error) {
	dir, data, err := findHosts(c.cfg.HostsDir, registry)
	if err != nil || data == nil {
		return []endpoint{origin}, err
	}
	all, err := parseHosts(data, dir, origin)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w: %w", filepath.Join(dir, "hosts.toml"), err, errdefs.ErrInvalidArgument)
	}
	return all, nil
}

// findHosts looks for the file of a registry, then for the one of all that have
// none. A colon in a directory's name may be written as containerd does on Windows.
func findHosts(root, registry string) (dir string, data []byte, err error) {
	name, port, hasPort := strings.Cut(registry, ":")
	candidates := []string{registry, "_default"}
	if hasPort {
		candidates = []string{registry, name + "_" + port + "_", "_default"}
	}
	for _, name := range candidates {
		dir = filepath.Join(root, name)
		data, err = os.ReadFile(filepath.Join(dir, "hosts.toml"))
		if !errors.Is(err, fs.ErrNotExist) {
			return dir, data, err
		}
	}
	return "", nil, nil
}

func parseHosts(data []byte, dir string, origin endpoint) ([]endpoint, error) {
	var file hostsFile
	if err := toml.Unmarshal(data, &file); err != nil {
		return nil, err
	}
	// The order of the document is the order in which hosts are asked.
	position := func(name string) int {
		return max(bytes.Index(data, []byte(name+`"`)), bytes.Index(data, []byte(name+`'`)))
	}
	names := slices.SortedFunc(maps.Keys(file.Host), func(a, b string) int { return cmp.Compare(position(a), position(b)) })
	var all []endpoint
	for _, name := range names {
		e, err := file.Host[name].endpoint(name, dir, origin)
		if err != nil {
			return nil, fmt.Errorf("host %q: %w", name, err)
		}
		all = append(all, e)
	}
	if file.Server == "" {
		file.Server = origin.url()
	}
	last, err := file.endpoint(file.Server, dir, origin)
	if err != nil {
		return nil, fmt.Errorf("server %q: %w", file.Server, err)
	}
	return append(all, last), nil
}

// url of an endpoint as hosts.toml would have it.
func (e endpoint) url() string {
	if e.scheme == "" {
		return e.host
	}
	return e.scheme + "://" + e.host
}

func (h hostFile) endpoint(address, dir string, origin endpoint) (endpoint, error) {
	e := endpoint{registry: origin.registry, can: origin.can, header: http.Header{}}
	if !strings.Contains(address, "://") {
		e.scheme, e.host, e.path = origin.scheme, address, "/v2"
	} else {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return e, errors.New("want http://HOST or https://HOST")
		}
		e.scheme, e.host, e.path = u.Scheme, u.Host, strings.TrimSuffix(u.Path, "/")
		if !h.OverridePath && !strings.HasSuffix(e.path, "/v2") {
			e.path += "/v2"
		}
	}
	if h.Capabilities != nil {
		e.can = nil
		for _, c := range h.Capabilities {
			if !slices.Contains(origin.can, capability(c)) {
				return e, fmt.Errorf("unknown capability %q", c)
			}
			e.can = append(e.can, capability(c))
		}
	}
	for name, v := range h.Header {
		values, err := texts(v)
		if err != nil {
			return e, fmt.Errorf("header %s: %w", name, err)
		}
		e.header[http.CanonicalHeaderKey(name)] = values
	}
	var err error
	e.tls, err = h.tls(dir)
	return e, err
}

// tls reads the names of files, which are relative to the directory of hosts.toml.
func (h hostFile) tls(dir string) (tlsFiles, error) {
	files := tlsFiles{skipVerify: h.SkipVerify}
	at := func(name string) string {
		if filepath.IsAbs(name) {
			return name
		}
		return filepath.Join(dir, name)
	}
	cas, err := texts(h.CA)
	if err != nil {
		return files, fmt.Errorf("ca: %w", err)
	}
	for i := range cas {
		cas[i] = at(cas[i])
	}
	files.ca = strings.Join(cas, "\n")
	client := h.Client
	if list, ok := client.([]any); ok && len(list) == 1 {
		client = list[0] // a list of pairs, of which one is used
	}
	pair, err := texts(client)
	if err != nil || len(pair) > 2 {
		return files, errors.Join(errors.New("client: want one CERTIFICATE, or [CERTIFICATE, KEY]"), err)
	}
	if len(pair) > 0 {
		files.cert = at(pair[0])
	}
	if len(pair) > 1 {
		files.key = at(pair[1])
	}
	return files, nil
}

// texts reads a string or a list of them.
func texts(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var all []string
		for _, x := range v {
			s, ok := x.(string)
			if !ok {
				return nil, fmt.Errorf("%v is not a string", x)
			}
			all = append(all, s)
		}
		return all, nil
	}
	return nil, fmt.Errorf("%v is not a string", v)
}
