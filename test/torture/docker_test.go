package torture

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gantryd/gantry/test/rig"
)

// patience is how long any one answer may take, a restart of the daemon included.
const patience = 60 * time.Second

// docker is a client of the engine.
type docker struct {
	*world
	n     int
	rand  *rand.Rand
	http  *http.Client
	boxes []*box
	made  int
}

// box is a container that the client made.
type box struct {
	*mind
	name, id string
	code     int // with which the program ends by itself; 0 runs on until TERM, which is 5
	hunted   bool
	auto     bool   // removed at its end
	network  string // of its own
	volume   string
	started  int // how often a start was tried
}

func newDocker(w *world, n int) *docker {
	transport := keptAlive(w)
	transport.DisableKeepAlives = true // a daemon that died under a kept connection leaves open what was done
	return &docker{world: w, n: n, rand: w.rand(n), http: &http.Client{Transport: transport}}
}

func keptAlive(w *world) *http.Transport {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", w.daemon.Socket)
	}
	return &http.Transport{DialContext: dial, MaxIdleConnsPerHost: 10}
}

// get begins to read an answer.
func (d *docker) get(ctx context.Context, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, "GET", "http://d"+path, nil)
	if err != nil {
		return nil, err
	}
	return d.http.Do(req)
}

// refusal is an answer of the engine that is an error.
type refusal struct {
	code int
	text string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d: %s", r.code, r.text) }

func code(err error) int {
	var r *refusal
	if errors.As(err, &r) {
		return r.code
	}
	return 0
}

// call asks once. An error that is no refusal leaves open whether it was done.
func (d *docker) call(method, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var in io.Reader
	switch b := body.(type) {
	case nil:
	case io.Reader:
		in = b
	default:
		data, err := json.Marshal(b)
		if err != nil {
			d.t.Error(err)
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://d"+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := d.http.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			d.t.Errorf("%s %s: no answer in %v", method, path, patience)
		}
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		if ctx.Err() != nil {
			d.t.Errorf("%s %s: no end of the answer in %v", method, path, patience)
		}
		return err
	}
	d.answers.Add(1)
	if resp.StatusCode >= 400 {
		return &refusal{resp.StatusCode, strings.TrimSpace(string(data))}
	}
	switch a := answer.(type) {
	case nil:
		return nil
	case *[]byte:
		*a = data
		return nil
	}
	return json.Unmarshal(data, answer)
}

// sure asks until there is an answer; only for requests that may be repeated.
func (d *docker) sure(method, path string, body, answer any) (err error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = d.call(method, path, body, answer); err == nil || code(err) != 0 {
			return err
		}
	}
	return err
}

// load brings the image in.
func (d *docker) load() {
	var tar bytes.Buffer
	if err := rig.Archive(&tar, rig.Busybox(d.t)); err != nil {
		d.t.Fatal(err)
	}
	if err := d.call("POST", "/images/load?quiet=1", &tar, nil); err != nil {
		d.t.Fatal(err)
	}
}

type object = map[string]any

// script ends with code, or, where that is 0, runs on until TERM, and then ends
// with 5. It says hello first.
func script(code int) []string {
	if code != 0 {
		return []string{"sh", "-c", fmt.Sprintf("echo hello; sleep 0.%d; exit %d", code%10, code)}
	}
	return []string{"sh", "-c", "trap 'exit 5' TERM; echo hello; sleep 1000 & wait"}
}

// work makes containers and does with them what comes to mind, until ctx ends.
func (d *docker) work(ctx context.Context) {
	for ctx.Err() == nil {
		if len(d.boxes) == 0 || d.living() < 4 && d.rand.IntN(3) == 0 {
			d.create()
			continue
		}
		b := d.boxes[d.rand.IntN(len(d.boxes))]
		if b.certain("gone") {
			continue
		}
		d.step(b)
		if d.rand.IntN(3) == 0 {
			d.look(b)
		}
	}
}

func (d *docker) living() (n int) {
	for _, b := range d.boxes {
		if !b.certain("gone") {
			n++
		}
	}
	return n
}

func (d *docker) create() {
	d.made++
	b := &box{name: fmt.Sprintf("d%d-%d", d.n, d.made)}
	if d.rand.IntN(3) == 0 {
		b.code = 11 + d.rand.IntN(8)
	}
	host := object{}
	switch d.rand.IntN(6) {
	case 0:
		b.hunted = true
	case 1:
		b.auto = true
		host["AutoRemove"] = true
	case 2:
		b.network = b.name
		if err := d.sure("POST", "/networks/create", object{"Name": b.network}, nil); err != nil && code(err) != 409 {
			d.t.Errorf("create network %s: %v", b.network, err)
		}
		host["NetworkMode"] = b.network
	case 3:
		b.volume = b.name
		host["Binds"] = []string{b.volume + ":/data"}
	case 4:
		host["PortBindings"] = object{"80/tcp": []object{{"HostIp": "127.0.0.1", "HostPort": fmt.Sprint(20000 + d.n*3000 + d.made)}}}
	}
	b.mind = newMind()
	var made struct{ ID string }
	err := d.call("POST", "/containers/create?name="+b.name, object{
		"Image": "busybox", "Cmd": script(b.code), "ExposedPorts": object{"80/tcp": object{}}, "HostConfig": host,
	}, &made)
	b.note("create", err)
	switch {
	case err == nil && b.auto:
		b.is("created", "gone")
		b.id = made.ID
	case err == nil:
		b.is("created")
		b.id = made.ID
	case code(err) != 0:
		d.t.Errorf("create %s: %v", b.name, err)
		b.is("gone", "created")
	default:
		b.is("gone", "created")
	}
	d.boxes = append(d.boxes, b)
	if err != nil {
		d.look(b)
	}
}

// step is one request about b, and what may follow from it.
func (d *docker) step(b *box) {
	path := "/containers/" + b.name
	if b.hunted && b.id != "" && d.rand.IntN(2) == 0 {
		d.hunt(b.id, true)
		b.note("hunted", nil)
		b.mayEnd("exited 137")
	}
	switch d.rand.IntN(10) {
	case 0, 1, 2:
		d.start(b)
	case 3:
		d.end(b, path+"/stop?t=5", "exited 5")
	case 4:
		d.end(b, path+"/kill", "exited 137")
	case 5:
		d.pause(b)
	case 6:
		d.exec(b)
	case 7:
		d.rename(b)
	case 8:
		d.commit(b)
	case 9:
		d.remove(b)
	}
}

// begun says what may become of b, which was started.
func (b *box) begun() {
	b.started++
	if b.hunted {
		b.mayEnd("exited 137")
	}
	if b.code != 0 {
		b.mayEnd(b.end(b.code))
	}
}

// end is the state in which b is when its program has ended with code.
func (b *box) end(code int) string {
	if b.auto {
		return "gone"
	}
	return fmt.Sprintf("exited %d", code)
}

func (d *docker) start(b *box) {
	before := b.states()
	err := d.call("POST", "/containers/"+b.name+"/start", nil, nil)
	b.note("start", err)
	switch {
	case err == nil:
		// What was told before is void: a program that ended was started again.
		ran := b.may["running"] || b.may["paused"]
		b.is("running")
		if !ran {
			b.ends = map[string]bool{}
		}
		b.begun()
	case code(err) == 404 && (b.may["gone"] || b.ends["gone"]):
	case code(err) == 409 && (b.may["paused"] || b.auto):
	case code(err) == 304:
		d.t.Errorf("start %s: %v", b.name, err)
	case code(err) != 0 && b.hunted && d.isPrey(b.id):
		// Its shim was killed under the start.
		b.also(append(before, "running", "exited 137", "exited 127", "exited 128", "exited 255")...)
		b.begun()
	case code(err) != 0:
		d.t.Errorf("start %s, which may be %s: %v", b.name, b.mind, err)
		fallthrough
	default:
		b.also("running")
		if b.auto {
			b.also("gone") // its end is its removal, however it ended
		}
		b.begun()
	}
}

func (d *docker) isPrey(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.prey[id]
}

func (b *box) states() (all []string) {
	for s := range b.may {
		all = append(all, s)
	}
	return all
}

// end ends a program by stop or kill. If the answer says that it was done, the
// container has ended so, or as it would have by itself.
func (d *docker) end(b *box, path, state string) {
	if b.auto {
		state = "gone"
	}
	err := d.call("POST", path, nil, nil)
	b.note(path, err)
	switch {
	case err == nil:
		// A trap that the shell had not set yet, or a container that was paused:
		// then the end is by force.
		ran := b.may["running"] || b.may["paused"]
		if ran {
			b.mayEnd(state, b.end(137))
		}
		b.settle(d)
	case code(err) == 409 && strings.Contains(path, "/kill"): // does not run
	case code(err) == 409 && b.auto: // is being removed
	case code(err) == 304:
	case code(err) == 404 && (b.may["gone"] || b.ends["gone"]):
	case code(err) != 0:
		d.t.Errorf("end %s, which may be %s: %v", b.name, b.mind, err)
	default:
		if b.may["running"] || b.may["paused"] {
			b.mayEnd(state, b.end(137))
		}
	}
}

// settle looks until a container that was ended has ended.
func (b *box) settle(d *docker) {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		s := d.state(b)
		if s != "running" && s != "paused" {
			d.saw(b, s)
			return
		}
		if time.Now().After(end) {
			d.t.Errorf("%s is %s long after it was ended", b.name, s)
			return
		}
	}
}

func (d *docker) pause(b *box) {
	b.note("pause", nil)
	if err := d.call("POST", "/containers/"+b.name+"/pause", nil, nil); code(err) >= 500 && !b.hunted {
		d.t.Errorf("pause %s: %v", b.name, err)
	}
	if b.may["running"] {
		b.also("paused")
	}
	if d.rand.IntN(4) != 0 {
		if err := d.sure("POST", "/containers/"+b.name+"/unpause", nil, nil); code(err) >= 500 && !b.hunted {
			d.t.Errorf("unpause %s: %v", b.name, err)
		}
	}
	if b.may["paused"] {
		b.also("running")
	}
}

func (d *docker) rename(b *box) {
	d.made++
	to := fmt.Sprintf("d%d-%d", d.n, d.made)
	err := d.call("POST", "/containers/"+b.name+"/rename?name="+to, nil, nil)
	if code(err) != 0 && code(err) != 404 && !b.auto {
		d.t.Errorf("rename %s: %v", b.name, err)
	}
	if err == nil {
		b.name = to
	} else if code(err) == 0 {
		// One of the two names is its name; both cannot be.
		old, neu := d.stateOf(b.name), d.stateOf(to)
		if old != "gone" && neu != "gone" {
			d.t.Errorf("after a rename both %s and %s are there", b.name, to)
		}
		if neu != "gone" {
			b.name = to
		}
	}
}

// exec runs a program beside, and is told its output and its exit.
func (d *docker) exec(b *box) {
	var made struct{ ID string }
	want := 21 + d.rand.IntN(20)
	err := d.call("POST", "/containers/"+b.name+"/exec", object{
		"AttachStdout": true, "Cmd": []string{"sh", "-c", fmt.Sprintf("echo %d; exit %d", want, want)},
	}, &made)
	if err != nil {
		if code(err) >= 500 && !b.hunted {
			d.t.Errorf("exec in %s: %v", b.name, err)
		}
		return
	}
	var out []byte
	if err := d.call("POST", "/exec/"+made.ID+"/start", object{}, &out); err != nil {
		return
	}
	var is struct {
		Running  bool
		ExitCode *int
	}
	if d.call("GET", "/exec/"+made.ID+"/json", nil, &is) != nil || is.ExitCode == nil || b.canEnd() {
		return
	}
	if text := demux(out); *is.ExitCode == want && text != fmt.Sprintf("%d\n", want) {
		d.t.Errorf("exec in %s ended with %d and said %q", b.name, want, text)
	}
}

// canEnd says whether something may end the container beside the client.
func (b *box) canEnd() bool { return b.hunted || b.code != 0 }

// demux takes the frames of Docker's multiplexed stream apart.
func demux(data []byte) string {
	var text strings.Builder
	for len(data) >= 8 {
		n := min(int(binary.BigEndian.Uint32(data[4:8])), len(data)-8)
		text.Write(data[8 : 8+n])
		data = data[8+n:]
	}
	return text.String()
}

// commit makes an image of a container, and takes it away.
func (d *docker) commit(b *box) {
	repo := "commit" + b.name
	err := d.call("POST", "/commit?container="+b.name+"&repo="+repo+"&tag=1", object{}, nil)
	b.note("commit", err)
	if code(err) >= 500 {
		d.t.Errorf("commit %s: %v", b.name, err)
	}
	if err := d.sure("DELETE", "/images/"+repo+":1?force=1", nil, nil); err != nil && code(err) != 404 {
		d.t.Errorf("remove image %s: %v", repo, err)
	}
}

func (d *docker) remove(b *box) {
	if b.id != "" {
		d.hunt(b.id, false)
	}
	err := d.call("DELETE", "/containers/"+b.name+"?force=1", nil, nil)
	b.note("remove", err)
	switch {
	case err == nil:
		b.is("gone")
		b.ends = map[string]bool{}
		d.look(b)
	case code(err) == 404 && (b.may["gone"] || b.ends["gone"]):
	case code(err) == 409: // is being removed
		b.also("gone")
	case code(err) != 0:
		d.t.Errorf("remove %s, which may be %s: %v", b.name, b.mind, err)
	default:
		b.also("gone")
		b.mayEnd(b.end(137), "gone")
		if b.may["created"] {
			b.also("created")
		}
	}
}

// look compares what the client knows with what the engine says.
func (d *docker) look(b *box) { d.saw(b, d.state(b)) }

func (d *docker) saw(b *box, state string) {
	if err := b.sees(state); err != nil {
		d.t.Errorf("container %s (%.12s) %v", b.name, b.id, err)
		b.is(state)
	}
	if b.auto && state == "created" {
		b.also("gone") // whom it was made for is gone with the daemon: the next one removes it
	}
	if state != "running" && state != "paused" {
		b.ends = map[string]bool{}
	}
}

// state is the engine's word for the state of b, when it is in one.
func (d *docker) state(b *box) string {
	s := d.stateOf(b.name)
	for end := time.Now().Add(patience); b.auto && strings.HasPrefix(s, "exited") && time.Now().Before(end); s = d.stateOf(b.name) {
		time.Sleep(20 * time.Millisecond) // its removal was cut off, and goes on
	}
	if b.id == "" && s != "gone" {
		var is struct{ ID string }
		if err := d.sure("GET", "/containers/"+b.name+"/json", nil, &is); err == nil {
			b.id = is.ID
		}
	}
	return s
}

func (d *docker) stateOf(name string) string {
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		var is struct {
			State struct {
				Status   string
				ExitCode int
			}
		}
		err := d.sure("GET", "/containers/"+name+"/json", nil, &is)
		switch {
		case code(err) == 404:
			return "gone"
		case err != nil:
			d.t.Errorf("inspect %s: %v", name, err)
			return "gone"
		case is.State.Status == "exited":
			return fmt.Sprintf("exited %d", is.State.ExitCode)
		case is.State.Status != "removing" && is.State.Status != "restarting":
			return is.State.Status
		case time.Now().After(end):
			return is.State.Status
		}
	}
}

// steady is a container that nothing may touch: it writes a line every now and
// then, and must run on with its process.
func (d *docker) steady() (pid int) {
	err := errors.Join(
		d.call("POST", "/containers/create?name=steady", object{
			"Image": "busybox", "Cmd": []string{"sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done"},
		}, nil),
		d.call("POST", "/containers/steady/start", nil, nil),
	)
	if err != nil {
		d.t.Fatal(err)
	}
	b := &box{mind: newMind("running"), name: "steady"}
	d.boxes = append(d.boxes, b)
	return d.pid("steady")
}

func (d *docker) pid(name string) int {
	var is struct{ State struct{ Pid int } }
	if err := d.sure("GET", "/containers/"+name+"/json", nil, &is); err != nil {
		d.t.Errorf("inspect %s: %v", name, err)
	}
	return is.State.Pid
}

// checkSteady proves that the container runs as it did, and that no line is lost.
func (d *docker) checkSteady(pid int) {
	if now := d.pid("steady"); now != pid {
		d.t.Errorf("the steady container has process %d, and had %d", now, pid)
	}
	var out []byte
	if err := d.sure("GET", "/containers/steady/logs?stdout=1", nil, &out); err != nil {
		d.t.Error(err)
	}
	n := 0
	for lines := bufio.NewScanner(strings.NewReader(demux(out))); lines.Scan(); n++ {
		if lines.Text() != fmt.Sprint(n) {
			d.t.Errorf("line %d of the steady container is %q", n, lines.Text())
			return
		}
	}
	if n == 0 {
		d.t.Error("the steady container wrote nothing")
	}
}

// phoenix is a container whose shim may be killed at any time, and which must
// run again each time. It writes a line to a file at each of its beginnings.
func (d *docker) phoenix(i int) {
	dir := rig.Dir(d.t)
	b := &box{mind: newMind("running"), name: fmt.Sprintf("phoenix%d", i)}
	var made struct{ ID string }
	err := errors.Join(
		d.call("POST", "/containers/create?name="+b.name, object{
			"Image": "busybox", "Cmd": []string{"sh", "-c", "echo x >> /d/lives; exec sleep 1000"},
			"HostConfig": object{"RestartPolicy": object{"Name": "always"}, "Binds": []string{dir + ":/d"}},
		}, &made),
		d.call("POST", "/containers/"+b.name+"/start", nil, nil),
	)
	if err != nil {
		d.t.Fatal(err)
	}
	b.id = made.ID
	d.boxes = append(d.boxes, b)
	d.hunt(b.id, true)
	d.t.Cleanup(func() {
		lives, err := os.ReadFile(filepath.Join(dir, "lives"))
		if err != nil {
			d.t.Error(err)
		}
		if n, kills := bytes.Count(lives, []byte("x")), d.wasKilled(b.id); n < 1 || n > kills+1 {
			d.t.Errorf("%s lived %d times, and was killed %d times", b.name, n, kills)
		}
	})
}

// testify compares all that the client knows with what there is.
func (d *docker) testify() {
	for _, b := range d.boxes {
		if b.id != "" {
			d.hunt(b.id, false)
		}
		if strings.HasPrefix(b.name, "phoenix") {
			d.checkPhoenix(b)
			continue
		}
		d.look(b)
		if b.may["running"] && b.code != 0 {
			b.settle(d) // it ends by itself
		}
	}
}

// checkPhoenix proves that each end of it was known once: that makes a restart.
func (d *docker) checkPhoenix(b *box) {
	var is struct {
		RestartCount int
		State        struct{ Running bool }
	}
	rig.Eventually(d.t, func() error {
		if err := d.sure("GET", "/containers/"+b.name+"/json", nil, &is); err != nil {
			return err
		}
		if !is.State.Running {
			return fmt.Errorf("%s does not run", b.name)
		}
		return nil
	})
	if kills := d.wasKilled(b.id); is.RestartCount != kills {
		d.t.Errorf("%s was restarted %d times; its shim was killed %d times", b.name, is.RestartCount, kills)
	}
}

// clear removes all that the client made.
func (d *docker) clear() {
	for _, b := range d.boxes {
		d.made++
		if err := d.sure("DELETE", "/containers/"+b.name+"?force=1&v=1", nil, nil); err != nil && code(err) != 404 && code(err) != 409 {
			d.t.Errorf("remove %s: %v", b.name, err)
		}
		if b.network != "" {
			if err := d.sure("DELETE", "/networks/"+b.network, nil, nil); err != nil && code(err) != 404 {
				d.t.Errorf("remove network %s: %v", b.network, err)
			}
		}
		if b.volume != "" {
			if err := d.sure("DELETE", "/volumes/"+b.volume, nil, nil); err != nil && code(err) != 404 {
				d.t.Errorf("remove volume %s: %v", b.volume, err)
			}
		}
	}
}

// nothingLeft proves that the engine knows of nothing any more, and removes the
// image.
func (d *docker) nothingLeft() {
	rig.Eventually(d.t, func() error {
		var left []struct {
			ID    string
			Names []string
			State string
		}
		if err := d.sure("GET", "/containers/json?all=1", nil, &left); err != nil {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("containers are left: %v", left)
		}
		return nil
	})
	var vols struct{ Volumes []struct{ Name string } }
	if err := d.sure("GET", "/volumes", nil, &vols); err != nil || len(vols.Volumes) > 0 {
		d.t.Errorf("volumes are left: %v %v", vols.Volumes, err)
	}
	var nets []struct{ Name string }
	if err := d.sure("GET", "/networks", nil, &nets); err != nil || len(nets) != 3 {
		d.t.Errorf("networks: %v %v; only bridge, host and none were to be left", nets, err)
	}
	var images []struct{ ID, RepoTags any }
	if err := d.sure("DELETE", "/images/busybox:latest?force=1", nil, nil); err != nil {
		d.t.Error(err)
	}
	if err := d.sure("GET", "/images/json?all=1", nil, &images); err != nil || len(images) > 0 {
		d.t.Errorf("images are left: %v %v", images, err)
	}
}
