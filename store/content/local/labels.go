package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"github.com/gantryd/gantry/internal/atomicfile"
)

// NewWithLabels is New for a store that stands alone and remembers labels, in
// files labels/ALGORITHM/HEX beside its blobs.
func NewWithLabels(root string) (*Store, error) {
	s, err := New(root)
	if err != nil {
		return nil, err
	}
	s.labels = labelDir(filepath.Join(root, "labels"))
	return s, nil
}

// labelDir remembers the labels of blobs; empty, somebody else does.
type labelDir string

func (d labelDir) path(dgst digest.Digest) string {
	return filepath.Join(string(d), dgst.Algorithm().String(), dgst.Encoded())
}

func (d labelDir) of(dgst digest.Digest) (map[string]string, error) {
	if d == "" {
		return nil, nil
	}
	data, err := os.ReadFile(d.path(dgst))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var labels map[string]string
	if err == nil {
		err = json.Unmarshal(data, &labels)
	}
	if err != nil {
		return nil, fmt.Errorf("read labels of %s: %w", dgst, err)
	}
	return labels, nil
}

// set replaces all labels; none forgets them.
func (d labelDir) set(dgst digest.Digest, labels map[string]string) error {
	if d == "" {
		return nil
	}
	p := d.path(dgst)
	if len(labels) == 0 {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	data, err := json.Marshal(labels)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return err
	}
	return atomicfile.Write(p, data, 0o644)
}
