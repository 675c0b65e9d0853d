// Package mount carries out containerd's mounts: a type, a source and options as
// a snapshotter gives them.
package mount

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Mount is one mount(2), in the form of containerd's api/types.Mount.
type Mount struct {
	Type    string
	Source  string
	Target  string // below the target of All; usually empty
	Options []string
}

// All mounts mounts on target in order; when one fails, those before it are
// unmounted again.
func All(mounts []Mount, target string) error {
	for i, m := range mounts {
		if err := m.Mount(target); err != nil {
			for range i {
				err = errors.Join(err, Unmount(target))
			}
			return err
		}
	}
	return nil
}

// Mount mounts m on target. With the option loop its source is a file that becomes a
// loop device for as long as it is mounted, written and read past the page cache with
// direct-io, and for reading only with ro.
func (m Mount) Mount(target string) error {
	target = filepath.Join(target, m.Target)
	flags, loop, data := options(m.Options)
	fstype, source := m.Type, m.Source
	if loop.on {
		device, err := attach(m.Source, m.Source, flags&unix.MS_RDONLY != 0, loop.direct)
		if err != nil {
			return err
		}
		defer device.Close() // mounted, it lives on
		source = device.Name()
	}
	if fstype == "bind" || fstype == "rbind" {
		fstype, flags = "", flags|unix.MS_BIND
	}
	chdir := ""
	if len(data) >= os.Getpagesize() {
		// mount(2) takes one page: name the lower directories relative to the
		// directory that all of them share.
		chdir, data = shorten(data)
	}
	if err := mountAt(chdir, source, target, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.Type, target, err)
	}
	if flags&unix.MS_BIND != 0 && flags&unix.MS_RDONLY != 0 {
		// A bind mount takes its flags only at a remount (mount(2), "Remounting").
		if err := unix.Mount("", target, "", flags|unix.MS_REMOUNT, ""); err != nil {
			return errors.Join(fmt.Errorf("remount %s read-only: %w", target, err), Unmount(target))
		}
	}
	return nil
}

// Unmount takes the topmost mount off target, detaching it at once if it is busy.
// A target that is no mount point, or is not there, is no error.
func Unmount(target string) error {
	err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err == nil || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		return nil
	}
	return fmt.Errorf("unmount %s: %w", target, err)
}

// flagOf names the mount(2) flags as mount(8) spells them.
var flagOf = map[string]struct {
	set   uintptr
	clear uintptr
}{
	"ro":            {set: unix.MS_RDONLY},
	"rw":            {clear: unix.MS_RDONLY},
	"bind":          {set: unix.MS_BIND},
	"rbind":         {set: unix.MS_BIND | unix.MS_REC},
	"nosuid":        {set: unix.MS_NOSUID},
	"suid":          {clear: unix.MS_NOSUID},
	"nodev":         {set: unix.MS_NODEV},
	"dev":           {clear: unix.MS_NODEV},
	"noexec":        {set: unix.MS_NOEXEC},
	"exec":          {clear: unix.MS_NOEXEC},
	"sync":          {set: unix.MS_SYNCHRONOUS},
	"async":         {clear: unix.MS_SYNCHRONOUS},
	"dirsync":       {set: unix.MS_DIRSYNC},
	"remount":       {set: unix.MS_REMOUNT},
	"noatime":       {set: unix.MS_NOATIME},
	"atime":         {clear: unix.MS_NOATIME},
	"nodiratime":    {set: unix.MS_NODIRATIME},
	"diratime":      {clear: unix.MS_NODIRATIME},
	"relatime":      {set: unix.MS_RELATIME},
	"norelatime":    {clear: unix.MS_RELATIME},
	"strictatime":   {set: unix.MS_STRICTATIME},
	"nostrictatime": {clear: unix.MS_STRICTATIME},
}

// loopOptions are containerd's options of a mount whose source becomes a loop device.
type loopOptions struct{ on, direct bool }

func options(opts []string) (flags uintptr, loop loopOptions, data string) {
	var rest []string
	loop.on = slices.Contains(opts, "loop")
	for _, o := range opts {
		f, ok := flagOf[o]
		switch {
		case ok:
			flags = flags&^f.clear | f.set
		case loop.on && o == "direct-io":
			loop.direct = true
		case o != "" && o != "defaults" && o != "loop":
			rest = append(rest, o)
		}
	}
	return flags, loop, strings.Join(rest, ",")
}
