package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantryd/gantry/internal/atomicfile"
)

// records are JSON files of one kind in one directory, one for each ID.
type records[T any] struct {
	dir string
	// durable records outlive a power cut.
	durable bool
}

func (r records[T]) path(id string) string { return filepath.Join(r.dir, id+".json") }

func (r records[T]) write(id string, v T) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("record %s: %w", id, err)
	}
	write := atomicfile.Write
	if r.durable {
		write = atomicfile.WriteSync
	}
	if err := write(r.path(id), b, 0o600); err != nil {
		return fmt.Errorf("record %s: %w", id, err)
	}
	return nil
}

func (r records[T]) remove(id string) error {
	if err := os.Remove(r.path(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget %s: %w", id, err)
	}
	if !r.durable {
		return nil
	}
	return atomicfile.SyncDir(r.dir)
}

// all reads every record. A half-written file of a killed daemon is removed; one
// that cannot be read is given to bad and left where it is.
func (r records[T]) all(bad func(path string, err error)) ([]T, error) {
	entries, err := os.ReadDir(r.dir)
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	var all []T
	for _, e := range entries {
		path := filepath.Join(r.dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") {
			if err := os.Remove(path); err != nil {
				return nil, fmt.Errorf("read records: %w", err)
			}
			continue
		}
		var v T
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &v)
		}
		if err != nil {
			bad(path, err)
			continue
		}
		all = append(all, v)
	}
	return all, nil
}
