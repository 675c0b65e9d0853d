package remote

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/distribution/reference"
)

// Ping asks a registry whether it is one, and takes the credentials
// (distribution-spec, end-1).
func (c *Client) Ping(ctx context.Context, registry string) error {
	// The repository is only there for the form of a call: the path is whole.
	repo, err := reference.WithName(registry + "/ping")
	if err != nil {
		return fmt.Errorf("registry %s: %w", registry, err)
	}
	e := c.origin(registry)
	if err := c.resolveScheme(ctx, &e); err != nil {
		return err
	}
	k := call{method: http.MethodGet, repo: repo, path: e.scheme + "://" + e.host + e.path + "/"}
	resp, err := c.send(ctx, e, k, "")
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		drain(resp)
		auth, err := c.authorize(ctx, e, resp.Header.Values("WWW-Authenticate"), "")
		if err != nil {
			return err
		}
		if resp, err = c.send(ctx, e, k, auth); err != nil {
			return err
		}
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return answer(resp)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 16<<10))
	return err
}
