package shims

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A container that was just recorded is, for the most, started next: its shim is
// started at once, and waits for the bundle (docs/joint/shim.md, "Started ahead").
const (
	// maxAhead is how many wait at the same time; more containers do without.
	maxAhead = 64
	// aheadFor is how long one waits.
	aheadFor = 10 * time.Second
	// aheadReady is how long a task waits for its shim to be ready, before it has
	// another one started.
	aheadReady = 5 * time.Second
)

// aheadShim is a shim that waits. It ends when conn is closed.
type aheadShim struct {
	binary  string
	started chan struct{} // closed when conn is there, or will not be
	conn    *os.File      // to its descriptor 3; nil where it could not be started
}

// StartAhead starts the shim of a container that has no task yet, where its
// runtime's shim is ours and there are not too many. That it cannot is no failure:
// the task will have one started, and say why.
func (t *Table) StartAhead(ns, id, runtime string) {
	binary, err := t.resolve(runtime)
	if err != nil || filepath.Base(binary) != ownShim {
		return
	}
	k, s := key{ns, id}, &aheadShim{binary: binary, started: make(chan struct{})}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.ahead[k] != nil || len(t.ahead) >= maxAhead {
		return
	}
	t.ahead[k] = s
	t.work.Go(func() {
		defer close(s.started)
		conn, err := t.spawnAhead(k, binary)
		if err != nil {
			t.cfg.Log.Warn("start shim ahead", "namespace", ns, "container", id, "err", err)
		}
		s.conn = conn
	})
	time.AfterFunc(aheadFor, func() {
		if t.takeAhead(k, s) != nil {
			s.end()
		}
	})
}

// spawnAhead starts a shim that waits, and gives the other end of its descriptor 3.
func (t *Table) spawnAhead(k key, binary string) (_ *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(pair[1]), "shim")
	defer theirs.Close()
	if err := unix.SetNonblock(pair[0], true); err != nil {
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(pair[0]))
	}
	ours := os.NewFile(uintptr(pair[0]), "shim")
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	defer null.Close()
	if err := t.spawn(k, binary, "/", []*os.File{null, null, null, theirs}, "-wait"); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return ours, nil
}

// takeAhead takes the shim that waits for k out of the table: s, or with nil any.
func (t *Table) takeAhead(k key, s *aheadShim) *aheadShim {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := t.ahead[k]
	if found == nil || s != nil && s != found {
		return nil
	}
	delete(t.ahead, k)
	return found
}

// dropAhead ends the shim that waits for k, if one does.
func (t *Table) dropAhead(k key) {
	if s := t.takeAhead(k, nil); s != nil {
		s.end()
	}
}

// endAhead ends all that wait.
func (t *Table) endAhead() {
	t.mu.Lock()
	all := t.ahead
	t.ahead = nil
	t.mu.Unlock()
	for _, s := range all {
		s.end()
	}
}

// end has the shim see that nobody wants it.
func (s *aheadShim) end() {
	<-s.started
	if s.conn != nil {
		s.conn.Close()
	}
}

// use makes the shim that of the bundle in dir, with the listening socket l at path.
// One that does not know how to wait has ended instead of being ready.
func (s *aheadShim) use(ctx context.Context, dir, path string, l, log *os.File) error {
	<-s.started
	if s.conn == nil {
		return errors.New("it was not started")
	}
	deadline := time.Now().Add(aheadReady)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := s.conn.SetDeadline(deadline); err != nil {
		return err
	}
	var ready [8]byte
	if _, err := s.conn.Read(ready[:]); err != nil {
		return fmt.Errorf("wait until it is ready: %w", err)
	}
	return sendFiles(s.conn, dir+"\x00"+path, l, log)
}

// sendFiles sends a packet with two descriptors.
func sendFiles(conn *os.File, packet string, a, b *os.File) error {
	to, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	return withFD(a, func(a int) error {
		return withFD(b, func(b int) error {
			var sent error
			err := to.Write(func(fd uintptr) bool {
				sent = unix.Sendmsg(int(fd), []byte(packet), unix.UnixRights(a, b), nil, unix.MSG_NOSIGNAL)
				return !errors.Is(sent, unix.EAGAIN)
			})
			return errors.Join(err, os.NewSyscallError("sendmsg", sent))
		})
	})
}

// withFD calls f with the descriptor of file, whose mode stays as it is.
func withFD(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	return errors.Join(raw.Control(func(fd uintptr) { ferr = f(int(fd)) }), ferr)
}
