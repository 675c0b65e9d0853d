package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// capability is what an endpoint may be asked for.
type capability string

const (
	canPull    capability = "pull"
	canResolve capability = "resolve" // may say what a tag is: it is trusted as the registry itself
	canPush    capability = "push"
)

// endpoint is one server that answers for a registry: itself or a mirror.
type endpoint struct {
	registry string // as in references
	scheme   string // empty: HTTP or HTTPS, whichever it speaks
	host     string
	path     string // before the repository, "/v2"
	can      []capability
	header   http.Header
	tls      tlsFiles
}

// tlsFiles is how an endpoint's TLS differs from the machine's; it is a map key.
type tlsFiles struct {
	ca         string // files of PEM, separated by newlines
	cert, key  string
	skipVerify bool
}

// endpoints gives those that can be asked, in order; the registry itself is last.
func (c *Client) endpoints(registry string, need capability) ([]endpoint, error) {
	all := []endpoint{c.origin(registry)}
	if c.cfg.HostsDir != "" {
		var err error
		if all, err = c.configured(registry, all[0]); err != nil {
			return nil, err
		}
	}
	all = slices.DeleteFunc(all, func(e endpoint) bool { return !slices.Contains(e.can, need) })
	if len(all) == 0 {
		return nil, fmt.Errorf("registry %s: no configured host can %s: %w", registry, need, errdefs.ErrFailedPrecondition)
	}
	return all, nil
}

// origin is the endpoint of a registry that nothing is configured for.
func (c *Client) origin(registry string) endpoint {
	e := endpoint{
		registry: registry, scheme: "https", host: registry, path: "/v2",
		can: []capability{canPull, canResolve, canPush},
	}
	if registry == "docker.io" {
		e.host = "registry-1.docker.io"
	}
	if c.cfg.PlainHTTP(registry) || loopback(registry) {
		e.scheme = ""
	}
	return e
}

// loopback says whether host, with or without port, is this machine.
func loopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	ip := net.ParseIP(name)
	return name == "localhost" || strings.HasSuffix(name, ".localhost") || ip != nil && ip.IsLoopback()
}

// resolveScheme finds out which of HTTP and HTTPS an endpoint speaks that may
// speak either. The question carries no credential.
func (c *Client) resolveScheme(ctx context.Context, e *endpoint) error {
	if e.scheme != "" {
		return nil
	}
	c.mu.Lock()
	plain, known := c.plain[e.host]
	c.mu.Unlock()
	if !known {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.host+"/v2/", nil)
		if err != nil {
			return err
		}
		req.Header.Set("User-Agent", c.cfg.UserAgent) // and no other: it may be a secret
		client, err := c.client(e.tls)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return fmt.Errorf("reach registry %s: %w", e.host, unavailable(err))
		}
		// A TLS server answers plain HTTP with 400.
		plain = resp.StatusCode != http.StatusBadRequest
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10)
		resp.Body.Close()
		c.mu.Lock()
		c.plain[e.host] = plain
		c.mu.Unlock()
	}
	e.scheme = "https"
	if plain {
		e.scheme = "http"
	}
	return nil
}

// client gives the HTTP client for that TLS configuration.
func (c *Client) client(files tlsFiles) (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if have := c.transports[files]; have != nil {
		return have, nil
	}
	conf, err := files.config()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: min(c.cfg.Stall, 15*time.Second), KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       conf,
		TLSHandshakeTimeout:   min(c.cfg.Stall, 15*time.Second),
		ResponseHeaderTimeout: c.cfg.Stall,
		ExpectContinueTimeout: time.Second,
		IdleConnTimeout:       30 * time.Second,
		MaxIdleConnsPerHost:   8,
		ForceAttemptHTTP2:     false, // one connection for all layers is slower than one for each
		WriteBufferSize:       256 << 10,
		DisableCompression:    true, // a blob is its bytes: never let transport decode it
	}
	have := &http.Client{Transport: t, CheckRedirect: checkRedirect}
	c.transports[files] = have
	return have, nil
}

// checkRedirect refuses to leave TLS. net/http itself does not take
// Authorization along to another domain.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return fmt.Errorf("redirect from HTTPS to %s refused", req.URL.Redacted())
	}
	return nil
}

func (f tlsFiles) config() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.skipVerify}
	if f.ca != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, file := range strings.Split(f.ca, "\n") {
			pem, err := os.ReadFile(file)
			if err != nil {
				return nil, fmt.Errorf("read CA certificate: %w", err)
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("read CA certificate %s: no certificate in it: %w", file, errdefs.ErrInvalidArgument)
			}
		}
		conf.RootCAs = pool
	}
	if f.cert != "" {
		key := f.key
		if key == "" {
			key = f.cert
		}
		pair, err := tls.LoadX509KeyPair(f.cert, key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	return conf, nil
}
