package volume

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/internal/atomicfile"
)

// Local is the one driver: a directory of this host.
const Local = "local"

// Volume is one volume.
type Volume struct {
	Name      string
	Driver    string
	Created   time.Time
	Labels    map[string]string
	Options   map[string]string // type, device and o of a mount, in mount(8)'s words
	Anonymous bool              // nobody chose its name
	Path      string            `json:"-"` // of its content
}

// Store is the volumes below one directory. It is safe for concurrent use.
type Store struct {
	root  string
	state string

	mu sync.Mutex // held while volumes come, go, and are mounted
}

// validName is the rule for names; dataDir and metaFile are what a volume has.
var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

const (
	dataDir  = "_data"
	metaFile = "volume.json"
	fillFile = "filling" // beside them while a Fill is not done
)

// Open takes the directory root for volumes, and state for what a boot forgets:
// who has which volume mounted.
func Open(root, state string) (*Store, error) {
	for _, dir := range []string{root, state} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return nil, fmt.Errorf("make the directory of volumes: %w", err)
		}
	}
	return &Store{root: root, state: state}, nil
}

// refuse is an error of a kind with a text that is shown as it is.
func refuse(kind interface{ WithMessage(string) error }, format string, args ...any) error {
	return kind.WithMessage(fmt.Sprintf(format, args...))
}

// Create makes a volume, or finds it where it is there with the same driver; made
// says which. An empty name asks for an anonymous volume. Errors: InvalidArgument
// (name, driver, options), Conflict (the name has another driver).
func (s *Store) Create(w Volume) (v Volume, made bool, err error) {
	if w.Driver == "" {
		w.Driver = Local
	}
	if w.Name == "" {
		w.Name, w.Anonymous = randomName(), true
	}
	if err := check(w); err != nil {
		return Volume{}, false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, err := s.read(w.Name); !errdefs.IsNotFound(err) {
		return v, false, err
	}
	w.Created = time.Now()
	w.Path = s.path(w.Name)
	if err := s.write(w); err != nil {
		return Volume{}, false, fmt.Errorf("create volume %s: %w", w.Name, err)
	}
	return w, true, nil
}

func randomName() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func check(w Volume) error {
	switch {
	case w.Driver != Local:
		return refuse(errdefs.ErrNotFound, "create %s: error looking up volume plugin %s: plugin %q not found", w.Name, w.Driver, w.Driver)
	case len(w.Name) == 1:
		return refuse(errdefs.ErrInvalidArgument, "create %s: volume name is too short, names should be at least two alphanumeric characters", w.Name)
	case !validName.MatchString(w.Name) || len(w.Name) > 255:
		return refuse(errdefs.ErrInvalidArgument, "create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", w.Name, w.Name)
	}
	for key := range w.Options {
		if !slices.Contains([]string{"type", "device", "o"}, key) {
			return refuse(errdefs.ErrInvalidArgument, "create %s: invalid option: %q: want type, device or o", w.Name, key)
		}
	}
	if (w.Options["type"] != "" || w.Options["o"] != "") && w.Options["device"] == "" {
		return refuse(errdefs.ErrInvalidArgument, "create %s: missing required option: \"device\"", w.Name)
	}
	return nil
}

// write makes the volume whole under another name, which no volume can have, and
// then gives it its own.
func (s *Store) write(v Volume) error {
	temp, err := os.MkdirTemp(s.root, ".new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp) // it is not there any more, if all went well
	meta, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(temp, dataDir), 0o755); err != nil {
		return err
	}
	if err := os.Chmod(temp, 0o701); err != nil {
		return err
	}
	if err := atomicfile.WriteSync(filepath.Join(temp, metaFile), meta, 0o600); err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(s.root, v.Name)); err != nil {
		return err
	}
	return atomicfile.SyncDir(s.root)
}

func (s *Store) path(name string) string { return filepath.Join(s.root, name, dataDir) }

// Volume finds a volume. Errors: NotFound.
func (s *Store) Volume(name string) (Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.read(name)
}

func (s *Store) read(name string) (Volume, error) {
	if !validName.MatchString(name) {
		return Volume{}, refuse(errdefs.ErrNotFound, "get %s: no such volume", name)
	}
	raw, err := os.ReadFile(filepath.Join(s.root, name, metaFile))
	if errors.Is(err, fs.ErrNotExist) {
		return Volume{}, refuse(errdefs.ErrNotFound, "get %s: no such volume", name)
	}
	if err != nil {
		return Volume{}, fmt.Errorf("read volume %s: %w", name, err)
	}
	var v Volume
	if err := json.Unmarshal(raw, &v); err != nil {
		return Volume{}, fmt.Errorf("read volume %s: %w", name, err)
	}
	v.Path = s.path(name)
	return v, nil
}

// List gives all volumes, by name. One that cannot be read is left out of the
// list and named in the error.
func (s *Store) List() ([]Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fmt.Errorf("list volumes: %w", err)
	}
	var all []Volume
	var bad error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		v, err := s.read(e.Name())
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			bad = errors.Join(bad, err)
			continue
		}
		all = append(all, v)
	}
	return all, bad
}

// Vacant says whether a volume has no content, or not all with which it was to be
// filled.
func (s *Store) Vacant(name string) (bool, error) {
	if _, err := os.Lstat(filepath.Join(s.root, name, fillFile)); !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	d, err := os.Open(s.path(name))
	if err != nil {
		return false, err
	}
	defer d.Close()
	_, err = d.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// Fill has fill put into a volume what it is to have from its beginning. Until that
// is done and on disk, the volume is vacant: what a crash or an error cuts off is to
// be done again.
func (s *Store) Fill(name string, fill func(dir string) error) error {
	mark := filepath.Join(s.root, name, fillFile)
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if err := fill(s.path(name)); err != nil {
		return err
	}
	d, err := os.Open(s.path(name))
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("write %s to disk: %w", d.Name(), err)
	}
	return os.Remove(mark)
}

// Remove deletes a volume and its content. The owner says before that nobody uses
// it; a volume that is still mounted is refused. Errors: NotFound, Conflict.
func (s *Store) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.read(name)
	if err != nil {
		return err
	}
	if users := s.users(name); len(users) > 0 {
		return refuse(errdefs.ErrConflict, "remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	if mounted, err := isMount(v.Path); err != nil || mounted {
		// What is mounted there is somebody else's data.
		return errors.Join(err, refuse(errdefs.ErrConflict, "remove %s: something is mounted on %s", name, v.Path))
	}
	// Out of sight first, so that a crash leaves no half volume; without a new directory,
	// for which a full disk has no room.
	trash := filepath.Join(s.root, ".old-"+name)
	err = os.RemoveAll(trash)
	if err == nil {
		err = os.Rename(filepath.Join(s.root, name), trash)
	}
	if err == nil {
		err = errors.Join(atomicfile.SyncDir(s.root), os.RemoveAll(trash))
	}
	if err != nil {
		return fmt.Errorf("remove volume %s: %w", name, err)
	}
	return nil
}

// Sweep deletes what a killed daemon left half made or half removed.
func (s *Store) Sweep() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return fmt.Errorf("sweep volumes: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".new-") || strings.HasPrefix(e.Name(), ".old-") {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.root, e.Name())))
		}
	}
	return err
}

// Clone gives a copy that shares nothing.
func (v Volume) Clone() Volume {
	v.Labels, v.Options = maps.Clone(v.Labels), maps.Clone(v.Options)
	return v
}
