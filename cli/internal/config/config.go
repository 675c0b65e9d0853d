// Package config reads what docker's users already have: ~/.docker/config.json,
// the contexts beside it, and the credentials that it names.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gantryd/gantry/internal/atomicfile"
)

// File is config.json. Keys that are not named here survive a Save.
type File struct {
	Dir string // the directory of config.json

	Auths             map[string]Auth   `json:"auths,omitempty"`
	CredentialsStore  string            `json:"credsStore,omitempty"`
	CredentialHelpers map[string]string `json:"credHelpers,omitempty"`
	HTTPHeaders       map[string]string `json:"HttpHeaders,omitempty"`
	DetachKeys        string            `json:"detachKeys,omitempty"`
	CurrentContext    string            `json:"currentContext,omitempty"`
	PsFormat          string            `json:"psFormat,omitempty"`
	ImagesFormat      string            `json:"imagesFormat,omitempty"`
	NetworksFormat    string            `json:"networksFormat,omitempty"`
	VolumesFormat     string            `json:"volumesFormat,omitempty"`
	StatsFormat       string            `json:"statsFormat,omitempty"`

	rest map[string]json.RawMessage // the whole file, as it was read
}

// Auth is one entry of "auths".
type Auth struct {
	Auth          string `json:"auth,omitempty"` // base64 of user:password
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Dir is the directory of config.json: what the user named, DOCKER_CONFIG, or ~/.docker.
func Dir(named string) string {
	if named != "" {
		return named
	}
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return filepath.Join(home, ".docker")
}

// Load reads config.json in dir. A file that is not there is an empty one.
func Load(dir string) (*File, error) {
	f := &File{Dir: dir}
	name := filepath.Join(dir, "config.json")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(data, f); err != nil {
		return f, fmt.Errorf("read %s: %w", name, err)
	}
	if err := json.Unmarshal(data, &f.rest); err != nil {
		return f, fmt.Errorf("read %s: %w", name, err)
	}
	f.Dir = dir
	return f, nil
}

// Save writes the entries that Gantry changes, "auths" and "currentContext", and
// leaves every other key as it was.
func (f *File) Save() error {
	if f.rest == nil {
		f.rest = map[string]json.RawMessage{}
	}
	if err := f.set("auths", f.Auths, len(f.Auths) > 0); err != nil {
		return err
	}
	if err := f.set("currentContext", f.CurrentContext, f.CurrentContext != ""); err != nil {
		return err
	}
	data, err := json.MarshalIndent(f.rest, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.Dir, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(f.Dir, "config.json"), data, 0o600)
}

func (f *File) set(key string, v any, present bool) error {
	if !present {
		delete(f.rest, key)
		return nil
	}
	raw, err := json.Marshal(v)
	f.rest[key] = raw
	return err
}
