package shims

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/containerd/containerd/api/runtime/bootstrap/v1"

	"github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/internal/errs"
)

// ownShim is the shim that needs no "start" of its own: it takes a socket that
// listens already as descriptor 3 (docs/joint/shim.md, "One exec less").
const ownShim = "containerd-shim-gantry-v2"

// grouped says whether the shim may have to serve other containers too, which
// only its "start" knows to find out.
func grouped(spec []byte) bool {
	return bytes.Contains(spec, []byte("io.containerd.runc.v2.group")) || bytes.Contains(spec, []byte("io.kubernetes.cri.sandbox-id"))
}

// execShim writes down where the socket will be, makes it, and has a shim listen on
// it: ahead, which was started for this container, or a new one. The shim need not be
// awake for a connection to be made.
func (t *Task) execShim(ctx context.Context, ahead *aheadShim) (_ *bootstrap.BootstrapResult, err error) {
	path := filepath.Join(filepath.Dir(t.table.cfg.Address), "s", rand.Text())
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("make directory of shim sockets: %w", err)
	}
	// Written first: if we die after it, a successor finds the socket.
	where := &bootstrap.BootstrapResult{Version: 3, Address: "unix://" + path, Protocol: "ttrpc"}
	if err := t.bundle.writeAddress(where); err != nil {
		return nil, err
	}
	l, err := stdio.Listen(path)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	defer errs.Undo(&err, func() error { return os.Remove(path) })
	log, err := os.OpenFile(filepath.Join(t.bundle.dir, logFifo), os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open shim log: %w", err)
	}
	defer log.Close()
	if ahead != nil && ahead.binary == t.binary {
		err := ahead.use(ctx, t.bundle.dir, path, l, log)
		if err == nil {
			return where, nil
		}
		t.table.cfg.Log.Debug("shim that was started ahead is of no use", "task", t.ID, "err", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	return where, t.table.spawn(key{t.Namespace, t.ID}, t.binary, t.bundle.dir, []*os.File{null, null, log, l}, "-socket", path)
}

// spawn runs the shim itself, with files as its descriptors.
func (t *Table) spawn(k key, binary, dir string, files []*os.File, more ...string) error {
	argv := append([]string{binary, "-namespace", k.ns, "-id", k.id, "-address", t.cfg.Address, "-publish-binary", t.self}, more...)
	if t.cfg.Debug {
		argv = append(argv, "-debug")
	}
	pidfd := -1
	p, err := os.StartProcess(binary, argv, &os.ProcAttr{
		Dir:   dir,
		Env:   append(os.Environ(), "TTRPC_ADDRESS="+t.cfg.Address+".ttrpc", "GOMAXPROCS=1"),
		Files: files,
		Sys:   &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	})
	if err != nil {
		return fmt.Errorf("start shim of %s: %w", k.id, err)
	}
	t.reapLater(p, pidfd)
	return nil
}

// reapLater waits for p, if it ends before we do; that it has ended the connection
// tells. Without a pidfd (Linux 5.3) that takes a thread.
func (t *Table) reapLater(p *os.Process, pidfd int) {
	if pidfd >= 0 {
		_, err := t.poller.watch(pidfd, func(int) (more bool) {
			_, _ = p.Wait()
			return false
		})
		if err == nil {
			return
		}
	}
	go func() { _, _ = p.Wait() }()
}
