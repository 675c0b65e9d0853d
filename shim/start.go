package shim

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	api "github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/internal/atomicfile"
	"github.com/gantryd/gantry/internal/errs"
	"github.com/gantryd/gantry/internal/slack"
	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// start leaves a shim behind that listens already, and prints its address:
//
//	start ── listen ── exec shim (socket as fd 3) ── print ── exit
//
// The caller can connect at once; the kernel keeps the connection until the shim
// accepts. A container of a pod whose shim runs gets that shim's address.
func start(a args, stdin io.Reader, stdout io.Writer) error {
	form, params, err := readParams(a.ID, stdin)
	if err != nil {
		return err
	}
	a.take(params)
	if a.ID == "" || a.Namespace == "" {
		return errors.New("start: want -id and -namespace, or BootstrapParams on stdin")
	}
	path := a.socketPath(params.SocketDir)
	if err := leave(a, path); err != nil && !errors.Is(err, errRuns) {
		return err
	}
	address := "unix://" + path
	if err := atomicfile.Write(addressFile, []byte(address), 0o600); err != nil {
		return err
	}
	return answer(stdout, form, address)
}

// addressFile is where containerd 1.6 finds its shims after a restart, in the bundle.
const addressFile = "address"

// take has params, where they are there, win over flags and environment.
func (a *args) take(p taskapi.BootstrapParams) {
	set := func(s *string, v string) {
		if v != "" {
			*s = v
		}
	}
	set(&a.ID, p.InstanceID)
	set(&a.Namespace, p.Namespace)
	set(&a.Address, p.GRPCAddress)
	set(&a.TTRPCAddress, p.TTRPCAddress)
	set(&a.Publisher, p.Binary)
	a.Debug = a.Debug || p.LogLevel < 0
}

// form is how the caller of start speaks.
type form int

const (
	flags    form = iota // flags and environment, plain address or a little JSON
	protobuf             // BootstrapParams and BootstrapResult, since containerd 2.3
	jsonForm             // the same in protobuf's JSON
)

// readParams reads what the caller wrote to stdin: BootstrapParams, in one form
// or the other, or, from a containerd before 2.3, the runtime options, which come
// again with Create and are passed over. The two are told apart by what
// BootstrapParams must begin with, the id.
func readParams(id string, stdin io.Reader) (form, taskapi.BootstrapParams, error) {
	var p taskapi.BootstrapParams
	data, err := io.ReadAll(stdin)
	if err != nil {
		return flags, p, fmt.Errorf("read stdin: %w", err)
	}
	if len(data) > 0 && data[0] == '{' {
		p, err = parseJSONParams(data)
		return jsonForm, p, err
	}
	if wire.Unmarshal(data, &p) != nil || p.InstanceID == "" || p.Namespace == "" || id != "" && p.InstanceID != id {
		return flags, taskapi.BootstrapParams{}, nil
	}
	return protobuf, p, nil
}

// jsonParams has the names of protobuf's JSON mapping.
type jsonParams struct {
	InstanceID   string `json:"instanceId"`
	Namespace    string `json:"namespace"`
	TTRPCAddress string `json:"containerdTtrpcAddress"`
	GRPCAddress  string `json:"containerdGrpcAddress"`
	Binary       string `json:"containerdBinary"`
	SocketDir    string `json:"socketDir"`
}

func parseJSONParams(data []byte) (taskapi.BootstrapParams, error) {
	var j jsonParams
	if err := json.Unmarshal(data, &j); err != nil {
		return taskapi.BootstrapParams{}, fmt.Errorf("parse BootstrapParams: %w", err)
	}
	return taskapi.BootstrapParams{
		InstanceID:   j.InstanceID,
		Namespace:    j.Namespace,
		TTRPCAddress: j.TTRPCAddress,
		GRPCAddress:  j.GRPCAddress,
		Binary:       j.Binary,
		SocketDir:    j.SocketDir,
	}, nil
}

// answer prints where the shim listens, in the form that the caller understands.
func answer(w io.Writer, f form, address string) error {
	res := taskapi.BootstrapResult{Version: 3, Address: address, Protocol: "ttrpc"}
	out := []byte(address)
	highest, _ := strconv.Atoi(os.Getenv("MAX_SHIM_VERSION")) // since containerd 1.7
	switch {
	case f == protobuf:
		out = wire.Marshal(&res)
	case f == jsonForm:
		out = fmt.Appendf(nil, `{"version":3,"address":%q,"protocol":"ttrpc"}`, address)
	case highest >= 2:
		out = fmt.Appendf(nil, `{"version":%d,"address":%q,"protocol":"ttrpc"}`, min(highest, 3), address)
	}
	_, err := w.Write(out)
	return err
}

// maxSocketPath is what fits into a sockaddr_un (unix(7)), whoever dials.
const maxSocketPath = 107

// socketPath is where the shim listens: in dir, or in "s" beside the daemon's
// own socket, which is /run/containerd/s for a stock containerd. Its name comes
// from what must not be shared: daemon, namespace, and container or pod.
func (a *args) socketPath(dir string) string {
	sum := sha256.Sum256([]byte(a.Address + "\x00" + a.Namespace + "\x00" + a.group()))
	name := hex.EncodeToString(sum[:16])
	if dir == "" && a.Address != "" {
		dir = filepath.Join(filepath.Dir(strings.TrimPrefix(a.Address, "unix://")), "s")
	}
	if path := filepath.Join(dir, name); dir != "" && len(path) <= maxSocketPath {
		return path
	}
	return filepath.Join("/run/containerd/s", name)
}

// groupLabels are annotations that put containers under one shim.
var groupLabels = []string{"io.containerd.runc.v2.group", "io.kubernetes.cri.sandbox-id"}

// group is the pod that the bundle's config.json names, or the container itself.
func (a *args) group() string {
	data, err := os.ReadFile(filepath.Join(a.bundle, "config.json"))
	if err != nil || !slices.ContainsFunc(groupLabels, func(l string) bool { return strings.Contains(string(data), l) }) {
		return a.ID
	}
	var spec struct{ Annotations map[string]string }
	if json.Unmarshal(data, &spec) != nil {
		return a.ID // Create will say what is wrong with it
	}
	for _, l := range groupLabels {
		if g := spec.Annotations[l]; g != "" {
			return g
		}
	}
	return a.ID
}

// errRuns says that a shim listens on the socket already.
var errRuns = errors.New("shim runs")

// leave starts the shim with its socket and does not wait for it.
func leave(a args, path string) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return fmt.Errorf("make socket directory: %w", err)
	}
	l, err := api.Listen(path)
	if errors.Is(err, unix.EADDRINUSE) {
		return errRuns
	}
	if err != nil {
		return err
	}
	defer l.Close()
	defer errs.Undo(&err, func() error { return os.Remove(path) })
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	a.SocketPath = path
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	log := openLog(null)
	defer log.Close()
	if err := closeInherited(); err != nil {
		return err
	}
	p, err := os.StartProcess(self, a.argv(self), &os.ProcAttr{
		Env:   append(environ(), "TTRPC_ADDRESS="+a.TTRPCAddress, "GOMAXPROCS=1"),
		Files: []*os.File{null, null, log, l},
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start shim: %w", err)
	}
	return p.Release()
}

// argv is the command line of a shim.
func (cfg *Config) argv(self string) []string {
	argv := []string{self, "-namespace", cfg.Namespace, "-id", cfg.ID, "-address", cfg.Address, "-socket", cfg.SocketPath}
	if cfg.Publisher != "" {
		argv = append(argv, "-publish-binary", cfg.Publisher)
	}
	if cfg.Debug {
		argv = append(argv, "-debug")
	}
	return argv
}

// closeInherited has every descriptor but the standard ones closed at the next
// exec: what a daemon left open by mistake is no business of a container's.
func closeInherited() error {
	err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
	if err != nil && !errors.Is(err, unix.ENOSYS) { // before Linux 5.11
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	return nil
}

// openLog opens the fifo "log" in the bundle, by which a daemon reads what its
// shims have to say. Reading and writing, so that it never is a broken pipe; not
// blocking, so that a full one loses words instead of time.
func openLog(null *os.File) *os.File {
	fd, err := unix.Open("log", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return null
	}
	return os.NewFile(uintptr(fd), "log")
}

// serve is the shim itself, started when there is work for it or, to wait, ahead.
func serve(cfg Config, wait bool) error {
	var st unix.Stat_t
	if err := unix.Fstat(socketFD, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return errors.New("want a command, start or delete (or a socket as descriptor 3)")
	}
	unix.CloseOnExec(socketFD)
	cfg.begin()
	if err := raiseOOMScore(); err != nil {
		slog.Warn("the kernel spares this shim as it does the daemon", "err", err)
	}
	if wait {
		return waitFor(cfg)
	}
	cfg.Socket = os.NewFile(socketFD, cfg.SocketPath)
	s, err := New(cfg)
	if err != nil {
		return err
	}
	return s.Run()
}

// begin does what every shim does first.
func (cfg *Config) begin() {
	if cfg.Debug {
		slog.SetLogLoggerLevel(slog.LevelDebug)
	}
	if err := slack.Monitor(monitorSlack); err != nil {
		slog.Debug("the runtime's monitor polls as it does", "err", err)
	}
}

// raiseOOMScore lets the kernel, where memory is out, kill a shim before the daemon
// that started it, whose score it has until now: by one, as containerd's shims do.
func raiseOOMScore() error {
	const file = "/proc/self/oom_score_adj"
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	return os.WriteFile(file, strconv.AppendInt(nil, int64(min(score+1, maxOOMScore)), 10), 0)
}

// maxOOMScore is OOM_SCORE_ADJ_MAX (proc(5)).
const maxOOMScore = 1000

// monitorSlack is as long as a call that blocks may hold up other work: nobody
// waits for the shim but in calls that take longer.
const monitorSlack = 4 * time.Millisecond

// socketFD is the descriptor that start hands over.
const socketFD = 3
