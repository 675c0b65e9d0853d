package docker

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Point is one mount point of a container: what an inspect tells, and what
// making it takes beyond that. A volume's Name (where it is anonymous) and
// Source are its owner's to fill in.
type Point struct {
	container.MountPoint

	NoCopy       bool              `json:",omitempty"` // a new volume does not get the image's content
	Subpath      string            `json:",omitempty"` // of a volume
	Labels       map[string]string `json:",omitempty"` // of a volume that is made
	Options      map[string]string `json:",omitempty"` // of a volume that is made, for its driver
	CreateSource bool              `json:",omitempty"` // a bind's source that is missing is made, as a directory

	NonRecursive         bool `json:",omitempty"`
	ReadOnlyNonRecursive bool `json:",omitempty"`

	Tmpfs []string `json:",omitempty"` // mount options of a tmpfs
}

// VolumeName is what a volume may be called.
var VolumeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// Points gives the mount points that cfg and host ask for. from answers for the
// points of a container named in --volumes-from. Later wishes win over earlier
// ones at the same place: other containers' points, binds, mounts; volumes of
// the image take what is left. Two wishes of the user at one place are an error.
func Points(cfg *container.Config, host *container.HostConfig, from func(name string) ([]Point, error)) ([]Point, error) {
	var points []Point
	taken := func(dest string) int {
		return slices.IndexFunc(points, func(p Point) bool { return p.Destination == dest })
	}
	for _, spec := range host.VolumesFrom {
		theirs, err := volumesFrom(spec, from)
		if err != nil {
			return nil, err
		}
		for _, p := range theirs {
			if i := taken(p.Destination); i >= 0 {
				points[i] = p
				continue
			}
			points = append(points, p)
		}
	}
	asked, err := asked(host)
	if err != nil {
		return nil, err
	}
	for i, p := range asked {
		if slices.ContainsFunc(asked[:i], func(o Point) bool { return o.Destination == p.Destination }) {
			return nil, refuse("Duplicate mount point: %s", p.Destination)
		}
		if i := taken(p.Destination); i >= 0 {
			points[i] = p
			continue
		}
		points = append(points, p)
	}
	for dest := range cfg.Volumes {
		p, err := anonymous(dest, host.VolumeDriver)
		if err != nil {
			return nil, err
		}
		if taken(p.Destination) < 0 {
			points = append(points, p)
		}
	}
	return points, nil
}

// asked is what the user says in so many words: -v, --mount, --tmpfs.
func asked(host *container.HostConfig) ([]Point, error) {
	var points []Point
	for _, b := range host.Binds {
		p, err := parseBind(b, host.VolumeDriver)
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	for _, m := range host.Mounts {
		p, err := parseMount(m)
		if err != nil {
			return nil, err
		}
		points = append(points, p)
	}
	for dest, opts := range host.Tmpfs {
		if err := checkDest(dest); err != nil {
			return nil, err
		}
		options, err := tmpfsOptions(splitNonEmpty(opts))
		if err != nil {
			return nil, err
		}
		points = append(points, Point{
			MountPoint: container.MountPoint{Type: mount.TypeTmpfs, Destination: path.Clean(dest), RW: !slices.Contains(options, "ro")},
			Tmpfs:      options,
		})
	}
	return points, nil
}

func splitNonEmpty(s string) []string {
	return slices.DeleteFunc(strings.Split(s, ","), func(o string) bool { return o == "" })
}

func checkDest(dest string) error {
	switch {
	case !path.IsAbs(dest):
		return refuse("invalid mount path: '%s' mount path must be absolute", dest)
	case path.Clean(dest) == "/":
		return refuse("invalid specification: destination can't be '/'")
	}
	return nil
}

func anonymous(dest, driver string) (Point, error) {
	if err := checkDest(dest); err != nil {
		return Point{}, err
	}
	return Point{MountPoint: container.MountPoint{Type: mount.TypeVolume, Destination: path.Clean(dest), Driver: orLocal(driver), RW: true}}, nil
}

func orLocal(driver string) string {
	if driver == "" {
		return "local"
	}
	return driver
}

// volumesFrom reads "CONTAINER[:ro|rw]".
func volumesFrom(spec string, from func(string) ([]Point, error)) ([]Point, error) {
	name, mode, _ := strings.Cut(spec, ":")
	if name == "" {
		return nil, refuse("malformed volumes-from specification: must not be empty: '%s'", spec)
	}
	if mode != "" && mode != "ro" && mode != "rw" && mode != "z" && mode != "Z" {
		return nil, refuse("invalid mode for volumes-from: %s", mode)
	}
	points, err := from(name)
	if err != nil {
		return nil, err
	}
	points = slices.DeleteFunc(slices.Clone(points), func(p Point) bool { return p.Type == mount.TypeTmpfs })
	for i := range points {
		points[i].RW = points[i].RW && mode != "ro"
	}
	return points, nil
}

// parseBind reads "SOURCE:DEST[:MODE]" or "DEST".
func parseBind(spec, driver string) (Point, error) {
	parts := strings.Split(spec, ":")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return Point{}, refuse("invalid volume specification: '%s'", spec)
	}
	if len(parts) == 1 {
		return anonymous(parts[0], driver)
	}
	source, dest := parts[0], parts[1]
	if err := checkDest(dest); err != nil {
		return Point{}, fmt.Errorf("invalid volume specification: '%s': %w", spec, err)
	}
	p := Point{MountPoint: container.MountPoint{Destination: path.Clean(dest), RW: true}}
	if path.IsAbs(source) {
		p.Type, p.Source, p.Propagation, p.CreateSource = mount.TypeBind, path.Clean(source), mount.PropagationRPrivate, true
	} else {
		if !VolumeName.MatchString(source) {
			return Point{}, refuse("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", source)
		}
		p.Type, p.Name, p.Driver, p.Mode = mount.TypeVolume, source, orLocal(driver), "z"
	}
	if len(parts) == 3 {
		p.Mode = parts[2]
		if err := p.readMode(parts[2]); err != nil {
			return Point{}, err
		}
	}
	return p, nil
}

// readMode reads the third part of -v. At most one word of a kind.
func (p *Point) readMode(mode string) error {
	kinds := map[string]int{}
	for o := range strings.SplitSeq(mode, ",") {
		kind := ""
		switch {
		case o == "ro" || o == "rw":
			kind, p.RW = "access", o == "rw"
		case o == "z" || o == "Z":
			kind = "label"
		case o == "nocopy" && p.Type == mount.TypeVolume:
			kind, p.NoCopy = "copy", true
		case o == "cached" || o == "delegated" || o == "consistent":
			kind = "consistency"
		case slices.Contains(mount.Propagations, mount.Propagation(o)) && p.Type == mount.TypeBind:
			kind, p.Propagation = "propagation", mount.Propagation(o)
		}
		if kinds[kind]++; kind == "" || kinds[kind] > 1 {
			return refuse("invalid mode: %s", mode)
		}
	}
	return nil
}

// parseMount reads a --mount.
func parseMount(m mount.Mount) (Point, error) {
	bad := func(err error) error {
		return refuse("invalid mount config for type %q: %v", m.Type, err)
	}
	if m.Target == "" {
		return Point{}, bad(fmt.Errorf("field Target must not be empty"))
	}
	if err := checkDest(m.Target); err != nil {
		return Point{}, bad(err)
	}
	p := Point{MountPoint: container.MountPoint{Type: m.Type, Destination: path.Clean(m.Target), RW: !m.ReadOnly}}
	var err error
	switch m.Type {
	case mount.TypeBind:
		err = p.bind(m)
	case mount.TypeVolume:
		err = p.volume(m)
	case mount.TypeTmpfs:
		err = p.tmpfs(m)
	default:
		return Point{}, refuse("mount type unknown: %q", m.Type)
	}
	if err != nil {
		return Point{}, bad(err)
	}
	return p, nil
}

func (p *Point) bind(m mount.Mount) error {
	switch {
	case m.Source == "":
		return fmt.Errorf("field Source must not be empty")
	case !path.IsAbs(m.Source):
		return fmt.Errorf("invalid mount path: '%s' mount path must be absolute", m.Source)
	case m.VolumeOptions != nil || m.TmpfsOptions != nil:
		return fmt.Errorf("options of another type must not be specified")
	}
	p.Source, p.Propagation = path.Clean(m.Source), mount.PropagationRPrivate
	if o := m.BindOptions; o != nil {
		if o.Propagation != "" {
			if !slices.Contains(mount.Propagations, o.Propagation) {
				return fmt.Errorf("invalid propagation mode: %s", o.Propagation)
			}
			p.Propagation = o.Propagation
		}
		if o.ReadOnlyNonRecursive && o.ReadOnlyForceRecursive {
			return fmt.Errorf("ReadOnlyNonRecursive and ReadOnlyForceRecursive must not both be set")
		}
		p.NonRecursive, p.ReadOnlyNonRecursive, p.CreateSource = o.NonRecursive, o.ReadOnlyNonRecursive, o.CreateMountpoint
	}
	if _, err := os.Stat(p.Source); os.IsNotExist(err) && !p.CreateSource {
		return fmt.Errorf("bind source path does not exist: %s", p.Source)
	}
	return nil
}

func (p *Point) volume(m mount.Mount) error {
	if m.BindOptions != nil || m.TmpfsOptions != nil {
		return fmt.Errorf("options of another type must not be specified")
	}
	if m.Source != "" && !VolumeName.MatchString(m.Source) {
		return fmt.Errorf("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", m.Source)
	}
	p.Name, p.Driver, p.Mode = m.Source, "local", "z"
	if o := m.VolumeOptions; o != nil {
		p.NoCopy, p.Labels, p.Subpath = o.NoCopy, o.Labels, o.Subpath
		if o.DriverConfig != nil {
			p.Driver, p.Options = orLocal(o.DriverConfig.Name), o.DriverConfig.Options
		}
	}
	return nil
}

func (p *Point) tmpfs(m mount.Mount) error {
	if m.Source != "" {
		return fmt.Errorf("field Source must not be specified")
	}
	var more []string
	if m.ReadOnly {
		more = append(more, "ro")
	}
	if o := m.TmpfsOptions; o != nil {
		if o.Mode != 0 {
			more = append(more, "mode="+strconv.FormatUint(uint64(o.Mode), 8))
		}
		if o.SizeBytes != 0 {
			more = append(more, "size="+strconv.FormatInt(o.SizeBytes, 10))
		}
		for _, kv := range o.Options {
			more = append(more, strings.Join(kv, "="))
		}
	}
	var err error
	p.Tmpfs, err = tmpfsOptions(more)
	return err
}

// tmpfsOptions lays the user's options over the defaults: what says the contrary
// takes the default away.
func tmpfsOptions(user []string) ([]string, error) {
	contrary := map[string]string{"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
	flags := []string{"ro", "rw", "noexec", "nosuid", "nodev", "sync", "async", "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime", "nostrictatime", "defaults"}
	values := []string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol", "huge"}
	options := []string{"noexec", "nosuid", "nodev", "rprivate"}
	for _, o := range user {
		key, _, hasValue := strings.Cut(o, "=")
		no, isContrary := contrary[o]
		switch {
		case isContrary:
			options = slices.DeleteFunc(options, func(d string) bool { return d == no })
		case hasValue && slices.Contains(values, key):
		case !hasValue && slices.Contains(flags, o):
		case !hasValue && slices.Contains(mount.Propagations, mount.Propagation(o)):
			options = slices.DeleteFunc(options, func(d string) bool { return d == "rprivate" })
		default:
			return nil, refuse("invalid tmpfs option %q", o)
		}
		if !slices.Contains(options, o) {
			options = append(options, o)
		}
	}
	return options, nil
}

// Mount is p in the words of the runtime spec, once its Source is known.
func (p Point) Mount() specs.Mount {
	m := specs.Mount{Destination: p.Destination, Type: "bind", Source: p.Source, Options: []string{"rbind"}}
	if p.Type == mount.TypeTmpfs {
		m.Type, m.Source, m.Options = "tmpfs", "tmpfs", p.Tmpfs
		return m
	}
	if p.NonRecursive {
		m.Options = []string{"bind"}
	}
	if !p.RW {
		m.Options = append(m.Options, "ro")
		if !p.NonRecursive && !p.ReadOnlyNonRecursive && p.Type == mount.TypeBind {
			// Mounts below the source are read-only too (mount_setattr, Linux 5.12).
			m.Options = append(m.Options, "rro")
		}
	}
	if p.Propagation != "" {
		m.Options = append(m.Options, string(p.Propagation))
	}
	return m
}
