package ociruntime

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountOptions is what the options of one mount come to.
type mountOptions struct {
	attr        unix.MountAttr // of the mount itself
	rec         unix.MountAttr // of it and everything below (rro and the like)
	propagation []treeAttr     // in the order given
	flags       bool           // some option is about attr
	bind        bool
	recursive   bool // rbind
	remount     bool
	links       links    // what a bind mount does with symlinks, as crun has it
	copyUp      bool     // tmpcopyup: the tmpfs begins with what lies below it
	idmap       string   // "idmap", "ridmap" or none
	unknown     string   // an option of a bind mount that means nothing there
	data        []string // for the filesystem
}

// links are options of crun's (crun(1), "EXTENSIONS TO OCI") for symlinks at the ends
// of a bind mount's paths.
type links struct {
	source bool // src-nofollow: the link is mounted, not what it leads to
	dest   bool // dest-nofollow: the mount lies on the link
	copied bool // copy-symlink: a source that is a link is made again, in place of a mount
}

// attrOption is an option that sets or clears attributes of a mount
// (mount_setattr(2)). Access times are one field of three values.
type attrOption struct {
	set, clear uint64
}

var attrOptions = map[string]attrOption{
	"ro":            {set: unix.MOUNT_ATTR_RDONLY},
	"rw":            {clear: unix.MOUNT_ATTR_RDONLY},
	"nosuid":        {set: unix.MOUNT_ATTR_NOSUID},
	"suid":          {clear: unix.MOUNT_ATTR_NOSUID},
	"nodev":         {set: unix.MOUNT_ATTR_NODEV},
	"dev":           {clear: unix.MOUNT_ATTR_NODEV},
	"noexec":        {set: unix.MOUNT_ATTR_NOEXEC},
	"exec":          {clear: unix.MOUNT_ATTR_NOEXEC},
	"nodiratime":    {set: unix.MOUNT_ATTR_NODIRATIME},
	"diratime":      {clear: unix.MOUNT_ATTR_NODIRATIME},
	"nosymfollow":   {set: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"symfollow":     {clear: unix.MOUNT_ATTR_NOSYMFOLLOW},
	"relatime":      {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"norelatime":    {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"noatime":       {set: unix.MOUNT_ATTR_NOATIME, clear: unix.MOUNT_ATTR__ATIME},
	"atime":         {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
	"strictatime":   {set: unix.MOUNT_ATTR_STRICTATIME, clear: unix.MOUNT_ATTR__ATIME},
	"nostrictatime": {set: unix.MOUNT_ATTR_RELATIME, clear: unix.MOUNT_ATTR__ATIME},
}

// keepsAtime are options that mount(2) has no bit for: a bind mount keeps what its
// source has.
var keepsAtime = map[string]bool{"atime": true, "norelatime": true, "nostrictatime": true, "diratime": true}

var propagationOptions = map[string]treeAttr{
	"private":     {attr: unix.MountAttr{Propagation: unix.MS_PRIVATE}},
	"rprivate":    {attr: unix.MountAttr{Propagation: unix.MS_PRIVATE}, recursive: true},
	"slave":       {attr: unix.MountAttr{Propagation: unix.MS_SLAVE}},
	"rslave":      {attr: unix.MountAttr{Propagation: unix.MS_SLAVE}, recursive: true},
	"shared":      {attr: unix.MountAttr{Propagation: unix.MS_SHARED}},
	"rshared":     {attr: unix.MountAttr{Propagation: unix.MS_SHARED}, recursive: true},
	"unbindable":  {attr: unix.MountAttr{Propagation: unix.MS_UNBINDABLE}},
	"runbindable": {attr: unix.MountAttr{Propagation: unix.MS_UNBINDABLE}, recursive: true},
}

// superOptions are flags of mount(2) that belong to the superblock; the mount
// API takes them as parameters of the filesystem.
var superOptions = map[string]string{
	"sync": "sync", "async": "async", "dirsync": "dirsync", "mand": "mand", "nomand": "nomand",
	"lazytime": "lazytime", "nolazytime": "nolazytime", "silent": "silent", "loud": "loud",
	"iversion": "iversion", "noiversion": "noiversion",
}

// knownMountOptions are all options that are not the filesystem's own, sorted,
// for `features`.
func knownMountOptions() []string {
	names := []string{"bind", "rbind", "remount", "defaults", "tmpcopyup", "copy-symlink", "src-nofollow", "dest-nofollow", "idmap", "ridmap", "acl", "noacl"}
	for o := range attrOptions {
		names = append(names, o)
		if o != "symfollow" && o != "nosymfollow" {
			names = append(names, "r"+o)
		}
	}
	names = append(names, "rsymfollow", "rnosymfollow")
	for o := range propagationOptions {
		names = append(names, o)
	}
	for o := range superOptions {
		names = append(names, o)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// parseMountOptions sorts the options of m by what they act upon.
func parseMountOptions(m specs.Mount) (mountOptions, error) {
	o := mountOptions{bind: m.Type == "bind" || m.Type == "rbind", recursive: m.Type == "rbind"}
	o.bind = o.bind || slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind")
	for _, opt := range m.Options {
		switch opt {
		case "bind":
		case "rbind":
			o.recursive = true
		case "remount":
			o.remount = true
		case "tmpcopyup":
			o.copyUp = true
		case "src-nofollow":
			o.links.source = true
		case "dest-nofollow":
			o.links.dest = true
		case "copy-symlink":
			o.links.copied = true
		case "idmap", "ridmap":
			o.idmap = opt
		case "", "defaults", "acl", "noacl":
		default:
			o.add(opt)
		}
	}
	if o.unknown != "" && !o.remount {
		return o, fmt.Errorf("option %s: bind mounts cannot have any filesystem-specific options applied", o.unknown) // callers of runc know these words
	}
	if len(m.UIDMappings)+len(m.GIDMappings) > 0 && !o.bind {
		return o, fmt.Errorf("uidMappings is only for a bind mount, not %q", m.Type)
	}
	return o, nil
}

func (o *mountOptions) add(opt string) {
	if p, ok := propagationOptions[opt]; ok {
		o.propagation = append(o.propagation, p)
		return
	}
	if a, ok := attrOptions[opt]; ok {
		o.flags = true
		if !o.bind || !keepsAtime[opt] {
			a.apply(&o.attr)
		}
		return
	}
	if a, ok := attrOptions[strings.TrimPrefix(opt, "r")]; ok && opt[0] == 'r' {
		a.apply(&o.rec)
		return
	}
	if s, ok := superOptions[opt]; ok {
		opt = s
	} else if o.bind {
		o.unknown = opt
	}
	o.data = append(o.data, opt)
}

// apply makes a later option win over an earlier one.
func (a attrOption) apply(m *unix.MountAttr) {
	m.Attr_set = m.Attr_set&^a.clear | a.set
	m.Attr_clr = m.Attr_clr&^a.set | a.clear
}
