package jsonlog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// watcher tells when something happens in the log's directory (inotify(7)).
type watcher struct {
	file    *os.File
	changed chan struct{} // has room for one: many changes are one
	done    chan struct{}
}

// watch begins before the log is read, so that nothing is written unseen. The
// directory is made if the container has not begun to write.
func watch(path string) (*watcher, error) {
	dir := filepath.Dir(path)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch log: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	const what = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM
	_, err = unix.InotifyAddWatch(fd, dir, what)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		f.Close()
		return nil, fmt.Errorf("watch log in %s: %w", dir, err)
	}
	w := &watcher{f, make(chan struct{}, 1), make(chan struct{})}
	go w.read()
	return w, nil
}

// read ends when the file is closed.
func (w *watcher) read() {
	defer close(w.done)
	buf := make([]byte, 4096)
	for {
		if _, err := w.file.Read(buf); err != nil {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

func (w *watcher) close() {
	w.file.Close()
	<-w.done
}
