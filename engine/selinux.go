package engine

import (
	"fmt"
	"path/filepath"

	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/selinux/go-selinux"
	"github.com/opencontainers/selinux/go-selinux/label"

	"github.com/gantryd/gantry/bundle/docker"
	ourmount "github.com/gantryd/gantry/internal/mount"
)

// seLinux gives containers their labels, where it is on: one to processes, one to
// files. What tells two containers apart in them is a pair of categories that no
// other container has.
type seLinux struct{ on bool }

func newSELinux(cfg Config) seLinux {
	on := cfg.SELinux && selinux.GetEnabled()
	if cfg.SELinux && !on {
		cfg.Log.Warn("containers get no SELinux labels: SELinux is not enabled on this machine")
	}
	return seLinux{on}
}

// labels makes the labels of a new container. One that shares the processes of
// the host has no label of its own; one that shares those of another has its.
func (s seLinux) labels(host *container.HostConfig, other func(ref string) (process, file string)) (process, file string, err error) {
	if !s.on {
		return "", "", nil
	}
	opts := docker.SecurityValues(host.SecurityOpt, "label")
	if len(opts) == 0 {
		for _, ref := range []string{host.IpcMode.Container(), host.PidMode.Container()} {
			if ref == "" {
				continue
			}
			if process, file := other(ref); process != "" {
				return process, file, nil
			}
		}
		if host.Privileged || host.IpcMode.IsHost() || host.PidMode.IsHost() {
			opts = []string{"disable"}
		}
	}
	process, file, err = label.InitLabels(opts)
	if err != nil {
		return "", "", invalid("invalid --security-opt: %w", err)
	}
	return process, file, nil
}

// of are the labels of a container as far as they mean something: one that was made
// with SELinux may be started without it.
func (s seLinux) of(rec record) (process, file string) {
	if !s.on {
		return "", ""
	}
	return rec.ProcessLabel, rec.MountLabel
}

// labelsOf are the labels of a container that is there.
func (c *containers) labelsOf(ref string) (process, file string) {
	k, err := c.find(ref)
	if err != nil {
		return "", "" // the start says so
	}
	rec := k.snapshot()
	return rec.ProcessLabel, rec.MountLabel
}

// reserve keeps the categories of a container that was made before this engine.
func (s seLinux) reserve(rec record) error {
	if !s.on || rec.ProcessLabel == "" {
		return nil
	}
	return selinux.ReserveLabelV2(rec.ProcessLabel)
}

// releaseLabels gives the categories of a container back, unless others share them.
func (c *containers) releaseLabels(rec record) {
	if !c.seLinux.on || rec.ProcessLabel == "" {
		return
	}
	for _, k := range c.all() {
		if k.snapshot().ProcessLabel == rec.ProcessLabel {
			return
		}
	}
	selinux.ReleaseLabel(rec.ProcessLabel)
}

// relabel labels what is mounted from the host: always what the engine made, and
// what the user marked with z, for any container, or Z, for this one alone.
func (s seLinux) relabel(path, file string, shared bool) error {
	if !s.on || file == "" {
		return nil
	}
	if err := label.Relabel(path, file, shared); err != nil {
		return fmt.Errorf("label %s: %w", path, err)
	}
	return nil
}

func (s seLinux) relabelPoint(p docker.Point, source, file string) error {
	if !label.RelabelNeeded(p.Mode) {
		return nil
	}
	return s.relabel(source, file, label.IsShared(p.Mode))
}

func (s seLinux) relabelEtc(dir, file string, shared bool) error {
	for _, name := range []string{"hosts", "hostname", "resolv.conf"} {
		if err := s.relabel(filepath.Join(dir, name), file, shared); err != nil {
			return err
		}
	}
	return nil
}

// labelled has all files of an overlay appear with one label, in quotes, as there
// is a comma between its categories.
func labelled(rootfs []ourmount.Mount, file string) []ourmount.Mount {
	if file == "" {
		return rootfs
	}
	var all []ourmount.Mount
	for _, m := range rootfs {
		if m.Type == "overlay" {
			m.Options = append(m.Options[:len(m.Options):len(m.Options)], `context="`+file+`"`)
		}
		all = append(all, m)
	}
	return all
}
