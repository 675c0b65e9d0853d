package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gantryd/gantry/api/journey"
	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/config"
	"github.com/gantryd/gantry/internal/version"
)

// Streams are the standard streams of a command line.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
}

// Main runs the command line args (without the program's name) and returns the
// exit code of the process. began is when the process started, for --explain.
func Main(ctx context.Context, args []string, std Streams, began time.Time) int {
	c := &cli{std: std, began: began}
	root, err := c.root(args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if c.client != nil {
		c.client.Close()
	}
	if err == nil {
		return 0
	}
	var status *statusError
	if !errors.As(err, &status) {
		status = &statusError{code: 1, err: err}
	}
	if text := status.Error(); text != "" {
		fmt.Fprintln(std.Err, text)
	}
	return status.code
}

// cli is one command line under way.
type cli struct {
	std    Streams
	began  time.Time
	global globals
	config *config.File
	client *client.Client
	spans  []journey.Span // of the requests, where --explain asks for them
}

// globals are the options before the command.
type globals struct {
	configDir string
	context   string
	debug     bool
	hosts     []string
	logLevel  string
	tls       bool
	tlsVerify bool
	tlsCA     string
	tlsCert   string
	tlsKey    string
	version   bool
}

// file is the user's config.json. A file that cannot be read is said once and
// then taken as empty, as docker does.
func (c *cli) file() *config.File {
	if c.config == nil {
		f, err := config.Load(config.Dir(c.global.configDir))
		if err != nil {
			fmt.Fprintf(c.std.Err, "WARNING: Error loading config file: %v\n", err)
		}
		c.config = f
	}
	return c.config
}

// contextName is the context in use and the reason why: an option, the
// environment or the file.
func (c *cli) contextName() string {
	switch {
	case c.global.context != "":
		return c.global.context
	case len(c.global.hosts) > 0 || os.Getenv("DOCKER_HOST") != "":
		return config.DefaultContext
	case os.Getenv("DOCKER_CONTEXT") != "":
		return os.Getenv("DOCKER_CONTEXT")
	case c.file().CurrentContext != "":
		return c.file().CurrentContext
	}
	return config.DefaultContext
}

// engine is the client of the engine that the user has chosen.
func (c *cli) engine() (*client.Client, error) {
	if c.client != nil {
		return c.client, nil
	}
	if c.global.context != "" && len(c.global.hosts) > 0 {
		return nil, errors.New("conflicting options: cannot specify both --host and --context")
	}
	e, err := c.endpoint()
	if err != nil {
		return nil, err
	}
	c.client = client.New(e, os.Getenv("DOCKER_API_VERSION"))
	c.client.UserAgent = "Gantry-Client/" + version.Version
	c.client.Header = c.file().HTTPHeaders
	return c.client, nil
}

func (c *cli) endpoint() (client.Endpoint, error) {
	if name := c.contextName(); name != config.DefaultContext {
		ctx, err := config.ReadContext(c.file().Dir, name)
		if err != nil {
			//lint:ignore ST1005 docker says it so, and scripts look for it
			return client.Endpoint{}, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err)
		}
		if t, ok := ctx.TLS(); ok {
			return client.ParseEndpoint(ctx.Host(), t.Config)
		}
		return client.ParseEndpoint(ctx.Host(), nil)
	}
	return client.ParseEndpoint(c.address(), c.tlsConfig())
}

// address is where the default context's engine is.
func (c *cli) address() string {
	if n := len(c.global.hosts); n > 0 {
		return c.global.hosts[n-1]
	}
	if host := os.Getenv("DOCKER_HOST"); host != "" {
		return host
	}
	return client.DefaultAddress
}

// tlsConfig is nil where the connection is to be plain.
func (c *cli) tlsConfig() func() (*tls.Config, error) {
	g := c.global
	verify := g.tlsVerify || os.Getenv("DOCKER_TLS_VERIFY") != ""
	if !g.tls && !verify && os.Getenv("DOCKER_TLS") == "" {
		return nil
	}
	dir := os.Getenv("DOCKER_CERT_PATH")
	if dir == "" {
		dir = config.Dir(g.configDir)
	}
	or := func(named, file string) string {
		if named != "" {
			return named
		}
		return filepath.Join(dir, file)
	}
	t := config.TLS{CA: or(g.tlsCA, "ca.pem"), Cert: or(g.tlsCert, "cert.pem"), Key: or(g.tlsKey, "key.pem"), Verify: verify}
	return t.Config
}
