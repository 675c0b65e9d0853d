package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
)

// challenge is one of a registry's WWW-Authenticate answers (RFC 9110, 11.6.1).
type challenge struct {
	scheme string // in lower case
	params map[string]string
}

// parseChallenges reads a WWW-Authenticate header. What cannot be read ends it.
func parseChallenges(header string) []challenge {
	var all []challenge
	rest := strings.TrimSpace(header)
	for rest != "" {
		scheme, after, _ := strings.Cut(rest, " ")
		ch := challenge{scheme: strings.ToLower(scheme), params: map[string]string{}}
		rest = strings.TrimSpace(after)
		for {
			name, after, ok := strings.Cut(rest, "=")
			if !ok || strings.ContainsAny(strings.TrimSpace(name), " ,") {
				break // the next scheme
			}
			value, after, ok := parameter(after)
			if !ok {
				return append(all, ch)
			}
			ch.params[strings.ToLower(strings.TrimSpace(name))] = value
			rest = strings.TrimLeft(after, " ,")
		}
		all = append(all, ch)
	}
	return all
}

// parameter reads a token or a quoted string.
func parameter(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		end := strings.IndexAny(s, ", ")
		if end < 0 {
			end = len(s)
		}
		return s[:end], s[end:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i < len(s) {
				b.WriteByte(s[i])
			}
		case '"':
			return b.String(), s[i+1:], true
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}

// authorize answers a 401 of e: the value of Authorization for scope.
func (c *Client) authorize(ctx context.Context, e endpoint, header []string, scope string) (string, error) {
	cred, err := c.cfg.Credentials(ctx, e.registry)
	if err != nil {
		return "", fmt.Errorf("credentials for %s: %w", e.registry, err)
	}
	if cred.Authorization != "" {
		return cred.Authorization, nil
	}
	var challenges []challenge
	for _, h := range header {
		challenges = append(challenges, parseChallenges(h)...)
	}
	for _, ch := range challenges {
		switch {
		case ch.scheme == "bearer" && ch.params["realm"] != "":
			token, err := c.token(ctx, e, ch.params, cred, scope)
			if err != nil {
				return "", err
			}
			return "Bearer " + token, nil
		case ch.scheme == "basic" && cred.User != "":
			return basic(cred), nil
		}
	}
	return "", fmt.Errorf("registry %s: authentication required: %w", e.registry, errdefs.ErrUnauthenticated)
}

func basic(cred Credential) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(cred.User+":"+cred.Secret))
}

// token asks the service that the challenge names (distribution's token and
// oauth2 documents). An identity token needs the POST form; a password goes by
// GET, and by POST where the service knows only that.
func (c *Client) token(ctx context.Context, e endpoint, params map[string]string, cred Credential, scope string) (string, error) {
	realm, err := url.Parse(params["realm"])
	if err != nil || realm.Host == "" || realm.Scheme != "https" && realm.Scheme != "http" {
		return "", fmt.Errorf("registry %s names no usable token service: %q: %w", e.registry, params["realm"], errdefs.ErrFailedPrecondition)
	}
	if realm.Scheme == "http" && e.scheme == "https" && cred.Secret != "" && !loopback(realm.Host) {
		return "", fmt.Errorf("registry %s wants the password sent without TLS to %s: refused: %w", e.registry, realm.Host, errdefs.ErrPermissionDenied)
	}
	if scope == "" {
		scope = params["scope"]
	}
	if cred.User == "" && cred.Secret != "" {
		return c.postToken(ctx, e, realm, url.Values{
			"grant_type": {"refresh_token"}, "refresh_token": {cred.Secret},
			"service": {params["service"]}, "scope": {scope}, "client_id": {"gantry"},
		})
	}
	token, status, err := c.getToken(ctx, e, realm, params["service"], scope, cred)
	if cred.Secret != "" && (status == http.StatusNotFound || status == http.StatusMethodNotAllowed) {
		return c.postToken(ctx, e, realm, url.Values{
			"grant_type": {"password"}, "username": {cred.User}, "password": {cred.Secret},
			"service": {params["service"]}, "scope": {scope}, "client_id": {"gantry"},
		})
	}
	return token, err
}

func (c *Client) getToken(ctx context.Context, e endpoint, realm *url.URL, service, scope string, cred Credential) (string, int, error) {
	u := *realm
	q := u.Query()
	if service != "" {
		q.Set("service", service)
	}
	for _, s := range strings.Fields(scope) {
		q.Add("scope", s)
	}
	if cred.User != "" {
		q.Set("account", cred.User)
	}
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return "", 0, err
	}
	if cred.User != "" {
		req.Header.Set("Authorization", basic(cred))
	}
	return c.askToken(e, req)
}

func (c *Client) postToken(ctx context.Context, e endpoint, realm *url.URL, form url.Values) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	token, _, err := c.askToken(e, req)
	return token, err
}

func (c *Client) askToken(e endpoint, req *http.Request) (string, int, error) {
	req.Header.Set("User-Agent", c.cfg.UserAgent)
	client, err := c.client(e.tls)
	if err != nil {
		return "", 0, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", 0, fmt.Errorf("ask token service of %s: %w", e.registry, unavailable(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", resp.StatusCode, fmt.Errorf("ask token service of %s: %w", e.registry, answer(resp))
	}
	var t struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&t)
	if t.Token == "" {
		t.Token = t.AccessToken
	}
	if err == nil && t.Token == "" {
		err = errors.New("no token in the answer")
	}
	if err != nil {
		return "", resp.StatusCode, fmt.Errorf("ask token service of %s: %w: %w", e.registry, err, errdefs.ErrFailedPrecondition)
	}
	return t.Token, resp.StatusCode, nil
}
