package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// maxPages of tags are read: a registry whose pages never end is hostile.
const maxPages = 1000

// Tags lists the tags of a repository, following the registry's pages.
func (c *Client) Tags(ctx context.Context, repo reference.Named) ([]string, error) {
	var tags []string
	err := c.each(ctx, repo, canResolve, func(e endpoint) error {
		tags = nil
		query := url.Values{"n": {"1000"}}
		for range maxPages {
			more, next, err := c.tagPage(ctx, e, repo, query)
			if err != nil {
				return err
			}
			tags = append(tags, more...)
			if query = next; query == nil {
				return nil
			}
		}
		return fmt.Errorf("registry gives more than %d pages: %w", maxPages, errdefs.ErrFailedPrecondition)
	})
	if err != nil {
		return nil, fmt.Errorf("list tags of %s: %w", repo.Name(), err)
	}
	return tags, nil
}

// tagPage reads one page, and the query of the next (nil after the last).
func (c *Client) tagPage(ctx context.Context, e endpoint, repo reference.Named, query url.Values) ([]string, url.Values, error) {
	resp, err := c.do(ctx, e, call{method: http.MethodGet, repo: repo, path: "/tags/list", query: query})
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	var page struct {
		Tags []string `json:"tags"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, MaxManifest)).Decode(&page); err != nil {
		return nil, nil, fmt.Errorf("read tags: %w: %w", err, errdefs.ErrFailedPrecondition)
	}
	// Link: </v2/x/tags/list?n=1000&last=y>; rel="next"
	link, rel, _ := strings.Cut(resp.Header.Get("Link"), ";")
	link = strings.TrimSpace(link)
	if !strings.Contains(rel, "next") || !strings.HasPrefix(link, "<") || !strings.HasSuffix(link, ">") {
		return page.Tags, nil, nil
	}
	u, err := url.Parse(link[1 : len(link)-1])
	if err != nil {
		return nil, nil, fmt.Errorf("read next page %q: %w: %w", printable(link), err, errdefs.ErrFailedPrecondition)
	}
	return page.Tags, u.Query(), nil
}
