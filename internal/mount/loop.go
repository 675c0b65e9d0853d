package mount

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// loopAttempts is how often a free loop device is asked for: between the answer and
// its use another may take it.
const loopAttempts = 100

// attach makes a loop device (loop(4)) of a file and gives it open. The kernel takes
// it away when the last who has it open or mounted is done with it. It carries a name
// of at most 63 bytes. LOOP_CONFIGURE is of Linux 5.8.
func attach(file, name string, readOnly, direct bool) (*os.File, error) {
	how, flags := os.O_RDWR, uint32(unix.LO_FLAGS_AUTOCLEAR)
	if readOnly {
		how, flags = os.O_RDONLY, flags|unix.LO_FLAGS_READ_ONLY
	}
	if direct {
		flags |= unix.LO_FLAGS_DIRECT_IO
	}
	back, err := os.OpenFile(file, how, 0)
	if err != nil {
		return nil, fmt.Errorf("make loop device: %w", err)
	}
	defer back.Close()
	config := unix.LoopConfig{Fd: uint32(back.Fd()), Info: unix.LoopInfo64{Flags: flags}}
	copy(config.Info.File_name[:len(config.Info.File_name)-1], name)
	for range loopAttempts {
		loop, err := configure(how, &config)
		if !errors.Is(err, unix.EBUSY) {
			if err != nil {
				return nil, fmt.Errorf("make loop device of %s: %w", file, err)
			}
			return loop, nil
		}
		time.Sleep(time.Millisecond)
	}
	return nil, fmt.Errorf("make loop device of %s: others took each free one: %w", file, unix.EBUSY)
}

// configure makes the first free device what config says, or gives EBUSY where it is
// free no more.
func configure(how int, config *unix.LoopConfig) (_ *os.File, err error) {
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer ctl.Close()
	n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
	if err != nil {
		return nil, fmt.Errorf("find a free one: %w", err)
	}
	loop, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), how, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.IoctlLoopConfigure(int(loop.Fd()), config); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", loop.Name(), err), loop.Close())
	}
	return loop, nil
}

// Attach makes a loop device of a file and a symbolic link to it, and keeps it until
// Detach. name tells it from others' devices, and has at most 63 bytes.
func Attach(file, link, name string, readOnly, direct bool) (err error) {
	loop, err := attach(file, name, readOnly, direct)
	if err != nil {
		return err
	}
	defer loop.Close()
	if err := os.Symlink(loop.Name(), link); err != nil {
		return err
	}
	// Last: whoever is killed before leaves a device that goes by itself.
	return autoclear(loop, false)
}

// Detach takes away what Attach made: the link, and the device as soon as nobody has
// it open or mounted. A link whose device is another's by now goes alone.
func Detach(link, name string) error {
	device, err := os.Readlink(link)
	if err != nil {
		return err
	}
	loop, err := os.Open(device)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil {
		defer loop.Close()
		info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
		switch {
		case errors.Is(err, unix.ENXIO): // nobody's
		case err != nil:
			return fmt.Errorf("look at %s: %w", device, err)
		case unix.ByteSliceToString(info.File_name[:]) == name:
			if err := autoclear(loop, true); err != nil {
				return err
			}
		}
	}
	return os.Remove(link)
}

// autoclear says whether the kernel takes the device away when nobody uses it.
func autoclear(loop *os.File, on bool) error {
	info, err := unix.IoctlLoopGetStatus64(int(loop.Fd()))
	if err != nil {
		return fmt.Errorf("look at %s: %w", loop.Name(), err)
	}
	info.Flags &^= unix.LO_FLAGS_AUTOCLEAR
	if on {
		info.Flags |= unix.LO_FLAGS_AUTOCLEAR
	}
	if err := unix.IoctlLoopSetStatus64(int(loop.Fd()), info); err != nil {
		return fmt.Errorf("set flags of %s: %w", loop.Name(), err)
	}
	return nil
}
