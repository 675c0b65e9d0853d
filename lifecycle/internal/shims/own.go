package shims

import (
	"bytes"
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

// execShim makes the socket, writes down where it is, and has the shim listen
// on it. The shim need not be awake for a connection to be made.
func (t *Task) execShim() (_ *bootstrap.BootstrapResult, err error) {
	path := filepath.Join(filepath.Dir(t.table.cfg.Address), "s", rand.Text())
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("make directory of shim sockets: %w", err)
	}
	l, err := stdio.Listen(path)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	defer errs.Undo(&err, func() error { return os.Remove(path) })
	where := &bootstrap.BootstrapResult{Version: 3, Address: "unix://" + path, Protocol: "ttrpc"}
	if err := t.bundle.writeAddress(where); err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	log, err := os.OpenFile(filepath.Join(t.bundle.dir, logFifo), os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open shim log: %w", err)
	}
	defer log.Close()
	cfg := t.table.cfg
	argv := []string{t.binary, "-namespace", t.Namespace, "-id", t.ID, "-address", cfg.Address, "-publish-binary", t.table.self, "-socket", path}
	if cfg.Debug {
		argv = append(argv, "-debug")
	}
	p, err := os.StartProcess(t.binary, argv, &os.ProcAttr{
		Dir:   t.bundle.dir,
		Env:   append(os.Environ(), "TTRPC_ADDRESS="+cfg.Address+".ttrpc", "GOMAXPROCS=1"),
		Files: []*os.File{null, null, log, l},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start shim of %s: %w", t.ID, err)
	}
	go p.Wait() // reaps it, if it ends before we do; that it has ended the connection tells
	return where, nil
}
