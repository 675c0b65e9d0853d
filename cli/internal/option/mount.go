package option

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/mount"
)

// ParseMount reads one --mount: fields of comma-separated values.
func ParseMount(s string) (mount.Mount, error) {
	fields, err := csv.NewReader(strings.NewReader(s)).Read()
	if err != nil {
		return mount.Mount{}, err
	}
	p := mountParser{m: mount.Mount{Type: mount.TypeVolume}}
	for _, field := range fields {
		if err := p.field(field); err != nil {
			return mount.Mount{}, err
		}
	}
	return p.finish()
}

// mountParser collects one mount; the parts for each type are kept apart so that
// one given for another type can be refused.
type mountParser struct {
	m      mount.Mount
	bind   *mount.BindOptions
	volume *mount.VolumeOptions
	tmpfs  *mount.TmpfsOptions
	image  *mount.ImageOptions
}

func (p *mountParser) field(field string) error {
	key, value, has := strings.Cut(field, "=")
	key = strings.ToLower(strings.TrimSpace(key))
	set, ok := mountFlags[key]
	if ok {
		on := true
		if has {
			var err error
			if on, err = strconv.ParseBool(value); err != nil {
				return fmt.Errorf("invalid value for %s: %s", key, value)
			}
		}
		set(p, on)
		return nil
	}
	if !has {
		return fmt.Errorf("invalid field '%s' must be a key=value pair", field)
	}
	return p.value(key, value)
}

// mountFlags are the fields that need no value.
var mountFlags = map[string]func(p *mountParser, on bool){
	"readonly":          func(p *mountParser, on bool) { p.m.ReadOnly = on },
	"ro":                func(p *mountParser, on bool) { p.m.ReadOnly = on },
	"bind-nonrecursive": func(p *mountParser, on bool) { p.bindOptions().NonRecursive = on },
	"volume-nocopy":     func(p *mountParser, on bool) { p.volumeOptions().NoCopy = on },
}

func (p *mountParser) value(key, value string) error {
	switch key {
	case "type":
		p.m.Type = mount.Type(strings.ToLower(value))
	case "source", "src":
		p.m.Source = value
		if strings.HasPrefix(value, "."+string(filepath.Separator)) || value == "." || strings.HasPrefix(value, "..") {
			if abs, err := filepath.Abs(value); err == nil {
				p.m.Source = abs
			}
		}
	case "target", "dst", "destination":
		p.m.Target = value
	case "consistency":
		p.m.Consistency = mount.Consistency(strings.ToLower(value))
	case "bind-propagation":
		p.bindOptions().Propagation = mount.Propagation(strings.ToLower(value))
	case "bind-recursive":
		return p.recursive(value)
	case "volume-subpath":
		p.volumeOptions().Subpath = value
	case "volume-label":
		v := p.volumeOptions()
		if v.Labels == nil {
			v.Labels = map[string]string{}
		}
		k, val, _ := strings.Cut(value, "=")
		v.Labels[k] = val
	case "volume-driver":
		p.driver().Name = value
	case "volume-opt":
		d := p.driver()
		if d.Options == nil {
			d.Options = map[string]string{}
		}
		k, val, _ := strings.Cut(value, "=")
		d.Options[k] = val
	case "image-subpath":
		if p.image == nil {
			p.image = &mount.ImageOptions{}
		}
		p.image.Subpath = value
	case "tmpfs-size":
		n, err := units.RAMInBytes(value)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		p.tmpfsOptions().SizeBytes = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(value, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		p.tmpfsOptions().Mode = os.FileMode(n)
	default:
		return fmt.Errorf("unexpected key '%s' in '%s=%s'", key, key, value)
	}
	return nil
}

func (p *mountParser) recursive(value string) error {
	b := p.bindOptions()
	switch value {
	case "enabled":
	case "disabled":
		b.NonRecursive = true
	case "writable":
		b.ReadOnlyNonRecursive = true
	case "readonly":
		b.ReadOnlyForceRecursive = true
	default:
		return fmt.Errorf(`invalid value for bind-recursive: %s (must be "enabled", "disabled", "writable", or "readonly")`, value)
	}
	return nil
}

func (p *mountParser) finish() (mount.Mount, error) {
	m := p.m
	switch {
	case m.Type == "":
		return m, errors.New("type is required")
	case m.Target == "":
		return m, errors.New("target is required")
	case p.volume != nil && m.Type != mount.TypeVolume:
		return m, fmt.Errorf("cannot mix 'volume-*' options with mount type '%s'", m.Type)
	case p.bind != nil && m.Type != mount.TypeBind:
		return m, fmt.Errorf("cannot mix 'bind-*' options with mount type '%s'", m.Type)
	case p.image != nil && m.Type != mount.TypeImage:
		return m, fmt.Errorf("cannot mix 'image-*' options with mount type '%s'", m.Type)
	case p.tmpfs != nil && m.Type != mount.TypeTmpfs:
		return m, fmt.Errorf("cannot mix 'tmpfs-*' options with mount type '%s'", m.Type)
	case p.bind != nil && p.bind.ReadOnlyNonRecursive && !m.ReadOnly:
		return m, errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
	case p.bind != nil && p.bind.ReadOnlyForceRecursive && !m.ReadOnly:
		return m, errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
	case p.bind != nil && p.bind.ReadOnlyForceRecursive && p.bind.Propagation != mount.PropagationRPrivate:
		return m, errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
	}
	m.BindOptions, m.VolumeOptions, m.TmpfsOptions, m.ImageOptions = p.bind, p.volume, p.tmpfs, p.image
	return m, nil
}

func (p *mountParser) bindOptions() *mount.BindOptions {
	if p.bind == nil {
		p.bind = &mount.BindOptions{}
	}
	return p.bind
}

func (p *mountParser) volumeOptions() *mount.VolumeOptions {
	if p.volume == nil {
		p.volume = &mount.VolumeOptions{}
	}
	return p.volume
}

func (p *mountParser) driver() *mount.Driver {
	v := p.volumeOptions()
	if v.DriverConfig == nil {
		v.DriverConfig = &mount.Driver{}
	}
	return v.DriverConfig
}

func (p *mountParser) tmpfsOptions() *mount.TmpfsOptions {
	if p.tmpfs == nil {
		p.tmpfs = &mount.TmpfsOptions{}
	}
	return p.tmpfs
}

// volumes tells --volume values apart: binds have a source, the rest is a path
// for which the engine makes an anonymous volume.
func volumes(list []string) (binds []string, anonymous map[string]struct{}) {
	anonymous = map[string]struct{}{}
	for _, v := range list {
		source, rest, ok := strings.Cut(v, ":")
		if !ok {
			anonymous[v] = struct{}{}
			continue
		}
		if strings.HasPrefix(source, ".") {
			if abs, err := filepath.Abs(source); err == nil {
				source = abs
			}
		}
		binds = append(binds, source+":"+rest)
	}
	return binds, anonymous
}
