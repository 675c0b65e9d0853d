package local

import (
	"context"
	"encoding"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/internal/filter"
	"github.com/gantryd/gantry/store/content"
)

// ingest is the directory of one ref.
type ingest string

func (s *Store) ingest(ref string) ingest {
	return ingest(filepath.Join(s.root, "ingest", digest.FromString(ref).Encoded()))
}

func (i ingest) file(name string) string { return filepath.Join(string(i), name) }

// begin makes the directory for a ref that has none.
func (i ingest) begin(ref string, desc ocispec.Descriptor) (content.Status, error) {
	if err := os.Mkdir(string(i), 0o755); err != nil {
		return content.Status{}, err
	}
	now := time.Now().UTC()
	at, err := now.MarshalText()
	if err != nil {
		return content.Status{}, err
	}
	files := map[string][]byte{"ref": []byte(ref), "startedat": at, "updatedat": at}
	if desc.Size > 0 {
		files["total"] = strconv.AppendInt(nil, desc.Size, 10)
	}
	if desc.Digest != "" {
		files["expected"] = []byte(desc.Digest)
	}
	for name, data := range files {
		if err := os.WriteFile(i.file(name), data, 0o644); err != nil {
			return content.Status{}, err
		}
	}
	return content.Status{Ref: ref, Total: desc.Size, Expected: desc.Digest, StartedAt: now, UpdatedAt: now}, nil
}

// status reads what the directory says. A directory that a crash left without
// its ref is NotFound.
func (i ingest) status() (content.Status, error) {
	ref, err := os.ReadFile(i.file("ref"))
	if err != nil {
		return content.Status{}, err
	}
	st := content.Status{Ref: string(ref)}
	if fi, err := os.Stat(i.file("data")); err == nil {
		st.Offset, st.UpdatedAt = fi.Size(), fi.ModTime()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return content.Status{}, err
	}
	if err := i.read("startedat", &st.StartedAt); err != nil {
		return content.Status{}, err
	}
	// A writer that was closed says more exactly than the file system when bytes last
	// came; of one that was killed, the file system knows it alone.
	var updated time.Time
	if err := i.read("updatedat", &updated); err != nil {
		return content.Status{}, err
	}
	if updated.After(st.UpdatedAt) {
		st.UpdatedAt = updated
	}
	if b, err := os.ReadFile(i.file("total")); err == nil {
		st.Total, _ = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	}
	if b, err := os.ReadFile(i.file("expected")); err == nil {
		st.Expected = digest.Digest(b)
	}
	return st, nil
}

// read fills v from a file; a missing or torn one leaves it as it is.
func (i ingest) read(name string, v encoding.TextUnmarshaler) error {
	b, err := os.ReadFile(i.file(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_ = v.UnmarshalText(b) // torn by a crash: the time is unknown
	return nil
}

// touch says when bytes last came.
func (i ingest) touch(at time.Time) error {
	text, err := at.UTC().MarshalText()
	if err != nil {
		return err
	}
	return os.WriteFile(i.file("updatedat"), text, 0o644)
}

// remove removes the directory, without looking for what is in it where that is
// what begin made.
func (i ingest) remove() error {
	for _, name := range []string{"ref", "startedat", "updatedat", "total", "expected"} {
		_ = os.Remove(i.file(name))
	}
	if os.Remove(string(i)) == nil {
		return nil
	}
	return os.RemoveAll(string(i))
}

// Status of the ingest ref.
func (s *Store) Status(_ context.Context, ref string) (content.Status, error) {
	st, err := s.ingest(ref).status()
	if err != nil {
		return content.Status{}, notFound("ingest", ref, err)
	}
	return st, nil
}

// ListStatuses lists the ingests that a filter (on ref) chooses.
func (s *Store) ListStatuses(_ context.Context, filters ...string) ([]content.Status, error) {
	f, err := filter.Parse(filters...)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(s.root, "ingest"))
	if err != nil {
		return nil, fmt.Errorf("list ingests: %w", err)
	}
	var all []content.Status
	for _, e := range entries {
		st, err := ingest(filepath.Join(s.root, "ingest", e.Name())).status()
		if errors.Is(err, fs.ErrNotExist) {
			continue // committed or aborted meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list ingests: %w", err)
		}
		if f.Match(st.Field) {
			all = append(all, st)
		}
	}
	return all, nil
}

// Abort throws an ingest away. While a writer holds the ref it is Unavailable.
func (s *Store) Abort(_ context.Context, ref string) error {
	if err := s.hold(ref); err != nil {
		return err
	}
	defer s.release(ref)
	i := s.ingest(ref)
	if _, err := os.Stat(string(i)); err != nil {
		return notFound("ingest", ref, err)
	}
	if err := os.RemoveAll(string(i)); err != nil {
		return fmt.Errorf("abort ingest %s: %w", ref, err)
	}
	return nil
}

// hold takes ref for one writer.
func (s *Store) hold(ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, held := s.refs[ref]; held {
		return fmt.Errorf("ingest %s: another writer holds it: %w", ref, errdefs.ErrUnavailable)
	}
	s.refs[ref] = struct{}{}
	return nil
}

func (s *Store) release(ref string) {
	s.mu.Lock()
	delete(s.refs, ref)
	s.mu.Unlock()
}
