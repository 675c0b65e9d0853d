package shim_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	bootstrap "github.com/containerd/containerd/api/runtime/bootstrap/v1"
	taskv2 "github.com/containerd/containerd/api/runtime/task/v2"
	taskv3 "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go/features"
	"google.golang.org/protobuf/proto"
)

// starting is one run of `start` in a bundle of its own.
type starting struct {
	args  []string
	env   []string
	stdin []byte
}

// start runs `start`, and ends the shim that it leaves after the test.
func (d *daemon) start(s starting) (out []byte, shim func() taskv3.TTRPCTaskService) {
	d.t.Helper()
	bundle := filepath.Join(d.dir, "b", "boot")
	if err := os.MkdirAll(bundle, 0o700); err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command(binary, append(s.args, "start")...)
	cmd.Dir, cmd.Env, cmd.Stdin = bundle, append(os.Environ(), s.env...), bytes.NewReader(s.stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		d.t.Fatalf("start: %v: %s", err, stderr.String())
	}
	return out, func() taskv3.TTRPCTaskService {
		address, err := os.ReadFile(filepath.Join(bundle, "address"))
		if err != nil {
			d.t.Fatal(err)
		}
		conn, err := net.Dial("unix", strings.TrimPrefix(string(address), "unix://"))
		if err != nil {
			d.t.Fatal(err)
		}
		c := ttrpc.NewClient(conn)
		task := taskv3.NewTTRPCTaskClient(c)
		r, err := task.Connect(d.t.Context(), &taskv3.ConnectRequest{})
		if err != nil {
			d.t.Fatal(err)
		}
		v2, err := taskv2.NewTTRPCTaskClient(c).Connect(d.t.Context(), &taskv2.ConnectRequest{})
		if err != nil || v2.ShimPid != r.ShimPid {
			d.t.Errorf("by version 2 the shim says %v, %v", v2, err)
		}
		if ours, its := oomScore(d.t, os.Getpid()), oomScore(d.t, int(r.ShimPid)); its != min(ours+1, 1000) {
			d.t.Errorf("the shim's oom_score_adj is %d, where who started it has %d", its, ours)
		}
		task.Shutdown(d.t.Context(), &taskv3.ShutdownRequest{})
		c.Close()
		gone(d.t, int(r.ShimPid))
		return task
	}
}

func oomScore(t testing.TB, pid int) int {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	score, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return score
}

func TestStartAnswersInTheCallersForm(t *testing.T) {
	flags := []string{"-namespace", "ns", "-id", "boot"}
	options, err := proto.Marshal(runtimeOptions(t, "/usr/sbin/runc"))
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		Version  int32
		Address  string
		Protocol string
	}
	for _, row := range []struct {
		name  string
		s     starting
		parse func(t *testing.T, d *daemon, out []byte) answer
	}{
		{
			"flags and a plain address (containerd 1.6)",
			starting{args: flags},
			func(_ *testing.T, _ *daemon, out []byte) answer { return answer{2, string(out), "ttrpc"} },
		},
		{
			"flags and options on stdin (containerd 1.6)",
			starting{args: flags, stdin: options},
			func(_ *testing.T, _ *daemon, out []byte) answer { return answer{2, string(out), "ttrpc"} },
		},
		{
			"MAX_SHIM_VERSION 2 and JSON (containerd 1.7)",
			starting{args: flags, env: []string{"MAX_SHIM_VERSION=2"}},
			func(t *testing.T, _ *daemon, out []byte) (a answer) {
				if err := json.Unmarshal(out, &a); err != nil || a.Version != 2 {
					t.Errorf("answer %s, %v", out, err)
				}
				return a
			},
		},
		{
			"MAX_SHIM_VERSION 4 and JSON (containerd 2.0 and later)",
			starting{args: flags, env: []string{"MAX_SHIM_VERSION=4"}, stdin: options},
			func(t *testing.T, _ *daemon, out []byte) (a answer) {
				if err := json.Unmarshal(out, &a); err != nil || a.Version != 3 {
					t.Errorf("answer %s, %v", out, err)
				}
				return a
			},
		},
		{
			"BootstrapParams (containerd 2.3 and later), with flags and environment as well",
			starting{args: flags, env: []string{"MAX_SHIM_VERSION=3"}, stdin: []byte("protobuf")},
			func(t *testing.T, d *daemon, out []byte) answer {
				var r bootstrap.BootstrapResult
				if err := proto.Unmarshal(out, &r); err != nil || r.Version != 3 {
					t.Errorf("answer %q, %v", out, err)
				}
				if want := "unix://" + filepath.Join(d.dir, "sockets"); filepath.Dir(r.Address) != filepath.Clean(want) && !strings.HasPrefix(r.Address, want) {
					t.Errorf("address is %s, want it in %s", r.Address, want)
				}
				return answer{r.Version, r.Address, r.Protocol}
			},
		},
		{
			"BootstrapParams alone",
			starting{stdin: []byte("protobuf")},
			func(t *testing.T, _ *daemon, out []byte) answer {
				var r bootstrap.BootstrapResult
				if err := proto.Unmarshal(out, &r); err != nil || r.Version != 3 {
					t.Errorf("answer %q, %v", out, err)
				}
				return answer{r.Version, r.Address, r.Protocol}
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := newDaemon(t)
			if string(row.s.stdin) == "protobuf" {
				params, err := proto.Marshal(&bootstrap.BootstrapParams{
					InstanceID: "boot", Namespace: "ns", SocketDir: ptr(filepath.Join(d.dir, "sockets")),
					ContainerdTtrpcAddress: d.socket() + ".ttrpc", ContainerdGrpcAddress: d.socket(),
				})
				if err != nil {
					t.Fatal(err)
				}
				row.s.stdin = params
			}
			if len(row.s.args) > 0 {
				row.s.args = append(row.s.args, "-address", d.socket())
			}
			out, shim := d.start(row.s)
			a := row.parse(t, d, out)
			if a.Protocol != "ttrpc" || !strings.HasPrefix(a.Address, "unix:///") {
				t.Errorf("answer is %+v", a)
			}
			shim()
		})
	}
}

func TestStartAsksForWhatItNeeds(t *testing.T) {
	for _, row := range []struct {
		name string
		args []string
		want string
	}{
		{"no id", []string{"-namespace", "ns", "start"}, "want -id and -namespace"},
		{"an unknown command", []string{"-namespace", "ns", "-id", "a", "stop"}, `unknown command "stop": want start, delete or upgrade`},
		{"an unknown flag", []string{"-speed", "9"}, "-speed"},
		{"no command and no socket", nil, "want a command, start or delete"},
	} {
		t.Run(row.name, func(t *testing.T) {
			cmd := exec.Command(binary, row.args...)
			cmd.Dir = t.TempDir()
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), row.want) || bytes.Count(out, []byte("\n")) != 1 {
				t.Errorf("said %q, %v; want one line with %q", out, err, row.want)
			}
		})
	}
}

func TestInfoAndVersion(t *testing.T) {
	onEach(t, testInfoAndVersion)
}

func testInfoAndVersion(t *testing.T, runtime string) {
	any := runtimeOptions(t, runtime)
	req, err := proto.Marshal(&types.RuntimeRequest{RuntimePath: binary, Options: any})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-info")
	cmd.Stdin = bytes.NewReader(req)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var info types.RuntimeInfo
	if err := proto.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	if info.Name != "io.containerd.gantry.v2" || info.Version.GetVersion() == "" || !proto.Equal(info.Options, any) {
		t.Errorf("info is %v", &info)
	}
	var can features.Features
	if err := json.Unmarshal(info.Features.GetValue(), &can); err != nil || !slices.Contains(can.MountOptions, "rro") {
		t.Errorf("features are %v, %v", info.Features, err)
	}
	out, err = exec.Command(binary, "-v").Output()
	if err != nil || !strings.HasPrefix(string(out), "containerd-shim-gantry-v2:\n  Version:  "+info.Version.Version) {
		t.Errorf("-v says %q, %v", out, err)
	}
}
