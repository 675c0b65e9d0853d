package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/moby/moby/api/types/registry"
)

// IndexServer is the key under which credentials for Docker Hub are kept.
const IndexServer = "https://index.docker.io/v1/"

// tokenUser is the user name under which a helper keeps an identity token.
const tokenUser = "<token>"

// Credential finds the credential for a registry: host[:port], or IndexServer.
// Where there is none the answer is empty but for the address.
func (f *File) Credential(server string) (registry.AuthConfig, error) {
	if helper := f.helper(server); helper != "" {
		return askHelper(helper, server)
	}
	a, ok := f.Auths[server]
	if !ok {
		// Old files have the registry's whole URL as the key.
		for key, v := range f.Auths {
			if hostOf(key) == hostOf(server) {
				a, ok = v, true
			}
		}
	}
	out := registry.AuthConfig{ServerAddress: server, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken}
	if !ok || a.Auth == "" {
		return out, nil
	}
	plain, err := base64.StdEncoding.DecodeString(a.Auth)
	if err != nil {
		return out, fmt.Errorf("read credential for %s: %w", server, err)
	}
	user, password, ok := strings.Cut(string(plain), ":")
	if !ok {
		return out, fmt.Errorf("read credential for %s: want user:password in base64", server)
	}
	out.Username, out.Password = user, strings.Trim(password, "\x00")
	return out, nil
}

// Store keeps a credential, in the helper that the user has chosen or in the file.
func (f *File) Store(a registry.AuthConfig) error {
	if helper := f.helper(a.ServerAddress); helper != "" {
		c := credential{ServerURL: a.ServerAddress, Username: a.Username, Secret: a.Password}
		if a.IdentityToken != "" {
			c.Username, c.Secret = tokenUser, a.IdentityToken
		}
		in, err := json.Marshal(c)
		if err != nil {
			return err
		}
		_, err = runHelper(helper, "store", in)
		return err
	}
	if f.Auths == nil {
		f.Auths = map[string]Auth{}
	}
	entry := Auth{IdentityToken: a.IdentityToken, Auth: base64.StdEncoding.EncodeToString([]byte(a.Username + ":" + a.Password))}
	if a.IdentityToken != "" {
		entry.Auth = base64.StdEncoding.EncodeToString([]byte(a.Username + ":"))
	}
	f.Auths[a.ServerAddress] = entry
	return f.Save()
}

// Erase forgets the credential for a registry, if there is one.
func (f *File) Erase(server string) error {
	if helper := f.helper(server); helper != "" {
		if _, err := runHelper(helper, "erase", []byte(server)); err != nil {
			return err
		}
	}
	if _, known := f.Auths[server]; !known {
		return nil
	}
	delete(f.Auths, server)
	return f.Save()
}

// Plain reports whether credentials for server are kept unencrypted in config.json.
func (f *File) Plain(server string) bool { return f.helper(server) == "" }

func (f *File) helper(server string) string {
	if h, ok := f.CredentialHelpers[hostOf(server)]; ok {
		return h
	}
	if h, ok := f.CredentialHelpers[server]; ok {
		return h
	}
	return f.CredentialsStore
}

func hostOf(server string) string {
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	host, _, _ := strings.Cut(server, "/")
	return host
}

// credential is what a helper reads and writes (docker-credential-helpers, README,
// "Development").
type credential struct {
	ServerURL string
	Username  string
	Secret    string
}

func askHelper(helper, server string) (registry.AuthConfig, error) {
	a := registry.AuthConfig{ServerAddress: server}
	out, err := runHelper(helper, "get", []byte(server))
	if err != nil {
		if strings.Contains(err.Error(), "credentials not found") {
			return a, nil
		}
		return a, err
	}
	var c credential
	if err := json.Unmarshal(out, &c); err != nil {
		return a, fmt.Errorf("read answer of docker-credential-%s: %w", helper, err)
	}
	if c.Username == tokenUser {
		a.IdentityToken = c.Secret
		return a, nil
	}
	a.Username, a.Password = c.Username, c.Secret
	return a, nil
}

func runHelper(helper, verb string, in []byte) ([]byte, error) {
	cmd := exec.Command("docker-credential-"+helper, verb)
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err == nil {
		return out, nil
	}
	// A helper says why on its standard output.
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && len(out) == 0 {
		out = exit.Stderr
	}
	return nil, fmt.Errorf("docker-credential-%s %s: %w: %s", helper, verb, err, bytes.TrimSpace(out))
}
