package torture

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
)

var (
	known = flag.Int("known", 1000, "how many containers the daemon knows in the test of scale")
	run   = flag.Int("run", 200, "how many of them run")
	polls = flag.Int("polls", 10000, "how often the daemon is polled")
	execs = flag.Int("execs", 1000, "how many programs are executed beside")
)

// A daemon with many containers answers as fast as one with few, is there again at
// once when it was killed, also where a shim hangs, and grows neither by polls nor
// by execs.
func TestManyContainersAreNoBurden(t *testing.T) {
	w := newWorld(t)
	d := newDocker(w, 0)
	d.http.Transport = keptAlive(w)
	d.load()
	// The limits are what a machine with nothing else to do never takes. Ten times
	// that is no busy machine any more, but a scan or a wait that should not be.
	took := func(what string, limit time.Duration, do func()) {
		t.Helper()
		start := time.Now()
		do()
		d := time.Since(start)
		t.Logf("%-60s %v", what, d.Round(time.Millisecond/10))
		if d > 10*limit {
			t.Errorf("%s took %v; it should take less than %v", what, d, limit)
		}
	}
	name := func(i int) string { return fmt.Sprintf("many%d", i) }
	t.Cleanup(func() {
		d.atOnce(*known, func(i int) error { return d.sure("DELETE", "/containers/"+name(i)+"?force=1", nil, nil) })
	})

	took(fmt.Sprintf("create %d containers", *known), 20*time.Second, func() {
		d.atOnce(*known, func(i int) error {
			return d.call("POST", "/containers/create?name="+name(i), object{
				"Image": "busybox", "Cmd": []string{"sleep", "1000"}, "HostConfig": object{"NetworkMode": "none"},
			}, nil)
		})
	})
	took(fmt.Sprintf("start %d of them", *run), 20*time.Second, func() {
		d.atOnce(*run, func(i int) error { return d.call("POST", "/containers/"+name(i)+"/start", nil, nil) })
	})
	n := newNative(w, 0)
	ask := func() {
		t.Helper()
		took("list all", 500*time.Millisecond, func() { d.wantListed("?all=1", *known) })
		took("list those that run", 200*time.Millisecond, func() { d.wantListed("", *run) })
		took("inspect 200", time.Second, func() {
			d.atOnce(min(200, *known), func(i int) error { return d.call("GET", "/containers/"+name(i)+"/json", nil, nil) })
		})
		took("list the tasks", time.Second, func() {
			r, err := n.tasks.List(in("moby"), &tasksapi.ListTasksRequest{})
			if err != nil || len(r.Tasks) != *run {
				t.Errorf("%d tasks, %v; want %d", len(r.GetTasks()), err, *run)
			}
		})
		took("the events of a start and an exit arrive", time.Second, func() { d.eventsArrive(name(*known - 1)) })
	}
	ask()

	// One shim hangs: nobody waits for it but who asks for its task.
	other, hung := d.idOf(name(1)), w.shims(d.idOf(name(0)))
	if len(hung) != 1 {
		t.Fatalf("shims of %s: %v", name(0), hung)
	}
	w.daemon.Kill()
	syscall.Kill(hung[0], syscall.SIGSTOP)
	took("lifecycle answers after a kill", time.Second, func() {
		w.daemon.Start(t)
		if _, err := n.tasks.Get(in("moby"), &tasksapi.GetRequest{ContainerID: other}); err != nil {
			t.Error(err)
		}
	})
	took("and the engine, with a shim that hangs", 4*time.Second, func() { d.wantListed("", *run) })
	syscall.Kill(hung[0], syscall.SIGCONT)
	w.daemon.Kill()
	took("the engine answers after a kill", 1500*time.Millisecond, func() {
		w.daemon.Start(t)
		d.wantListed("?all=1", *known)
	})
	ask()

	// The first of each fill what is kept for the next.
	d.poll(*polls/10, name)
	d.execMany(*execs/10, name)
	before := memory(t, w.daemon.Cmd.Process.Pid)
	took(fmt.Sprintf("poll %d times", *polls), 20*time.Second, func() { d.poll(*polls, name) })
	took(fmt.Sprintf("execute %d programs", *execs), 30*time.Second, func() { d.execMany(*execs, name) })
	after := memory(t, w.daemon.Cmd.Process.Pid)
	t.Logf("memory of gantryd with all of them: %.1f MB, and %.1f MB after", mb(before), mb(after))
	if grown := after - before; grown > 16<<20 {
		t.Errorf("gantryd grew by %.1f MB", mb(grown))
	}
}

func mb(n int64) float64 { return float64(n) / (1 << 20) }

// memory is what a process has of its own (RssAnon in proc(5)).
func memory(t *testing.T, pid int) (n int64) {
	data, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		if _, err := fmt.Sscanf(line, "RssAnon: %d kB", &n); err == nil {
			return n << 10
		}
	}
	t.Fatalf("process %d tells no memory", pid)
	return 0
}

// atOnce does n things, eight at a time.
func (d *docker) atOnce(n int, do func(i int) error) {
	var work sync.WaitGroup
	var next atomic.Int64
	for range 8 {
		work.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					d.t.Error(err)
					return
				}
			}
		})
	}
	work.Wait()
}

func (d *docker) wantListed(query string, want int) {
	var all []struct{ ID string }
	if err := d.sure("GET", "/containers/json"+query, nil, &all); err != nil || len(all) != want {
		d.t.Errorf("%d containers, %v; want %d", len(all), err, want)
	}
}

func (d *docker) idOf(name string) string {
	var is struct{ ID string }
	if err := d.sure("GET", "/containers/"+name+"/json", nil, &is); err != nil {
		d.t.Error(err)
	}
	return is.ID
}

// eventsArrive starts and kills a container, and waits to be told of both.
func (d *docker) eventsArrive(name string) {
	id := d.idOf(name)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	resp, err := d.get(ctx, `/events?filters={"container":{"`+id+`":true},"event":{"die":true}}`)
	if err != nil {
		d.t.Error(err)
		return
	}
	defer resp.Body.Close()
	err = errors.Join(d.call("POST", "/containers/"+name+"/start", nil, nil), d.call("POST", "/containers/"+name+"/kill", nil, nil))
	var m struct{ Actor struct{ ID string } }
	if err = errors.Join(err, json.NewDecoder(resp.Body).Decode(&m)); err != nil || m.Actor.ID != id {
		d.t.Errorf("event of %q, %v; want %s", m.Actor.ID, err, id)
	}
}

// poll asks what monitors ask, n times.
func (d *docker) poll(n int, name func(int) string) {
	d.atOnce(n, func(i int) error {
		switch {
		case i%100 == 0:
			return d.call("GET", "/containers/json?all=1", nil, nil)
		case i%10 == 1:
			return d.call("GET", "/containers/"+name(i%*run)+"/top", nil, nil)
		}
		return d.call("GET", "/containers/"+name(i%*known)+"/json", nil, nil)
	})
}

func (d *docker) execMany(n int, name func(int) string) {
	d.atOnce(n, func(i int) error {
		var made struct{ ID string }
		err := d.call("POST", "/containers/"+name(i%*run)+"/exec", object{"AttachStdout": true, "Cmd": []string{"echo", "hi"}}, &made)
		var out []byte
		if err == nil {
			err = d.call("POST", "/exec/"+made.ID+"/start", object{}, &out)
		}
		if err == nil && demux(out) != "hi\n" {
			err = fmt.Errorf("exec said %q", out)
		}
		return err
	})
}
