package mount

import (
	"path"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// shorten makes an overlay's lowerdir paths relative to the directory that they
// share, which it returns. Many layers otherwise overflow mount(2)'s one page.
func shorten(data string) (dir, short string) {
	opts := strings.Split(data, ",")
	for i, o := range opts {
		lower, ok := strings.CutPrefix(o, "lowerdir=")
		if !ok {
			continue
		}
		dirs := strings.Split(lower, ":")
		dir = commonDir(dirs)
		if dir == "/" {
			return "", data
		}
		for j := range dirs {
			dirs[j] = strings.TrimPrefix(dirs[j], dir+"/")
		}
		opts[i] = "lowerdir=" + strings.Join(dirs, ":")
	}
	return dir, strings.Join(opts, ",")
}

// commonDir is the longest directory that is above every path.
func commonDir(paths []string) string {
	dir := path.Dir(paths[0])
	for _, p := range paths[1:] {
		for dir != "/" && !strings.HasPrefix(p, dir+"/") {
			dir = path.Dir(dir)
		}
	}
	return dir
}

// mountAt is mount(2) with the working directory dir, "" for none in particular.
// The working directory belongs to the process, so the call is made on a thread
// that has unshared its own (CLONE_FS) and ends with the call.
func mountAt(dir, source, target, fstype string, flags uintptr, data string) error {
	if dir == "" {
		return unix.Mount(source, target, fstype, flags, data)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			done <- err
			return
		}
		if err := unix.Chdir(dir); err != nil {
			done <- err
			return
		}
		done <- unix.Mount(source, target, fstype, flags, data)
	}()
	return <-done
}
