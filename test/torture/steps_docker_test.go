package torture

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/test/rig"
)

// dockerOperations are what clients of the engine do.
var dockerOperations = []operation{
	{
		name: "create", prepare: (*stage).network,
		do: (*stage).create,
		again: func(s *stage, err error) {
			s.is(err, "created", "gone")
			if err != nil {
				s.must("create again", s.create(), 409)
			}
			s.must("start", s.post("/containers/"+s.name+"/start", nil))
			s.runs()
			s.hasAllOfImage()
		},
	},
	{
		name: "start", prepare: func(s *stage) { s.network(); s.made() }, shim: true,
		do: func(s *stage) error { return s.post("/containers/"+s.name+"/start", nil) },
		again: func(s *stage, err error) {
			if s.killed && err == nil {
				s.ends("exited 137")
			} else {
				s.is(err, "running", "created")
			}
			s.must("start again", s.post("/containers/"+s.name+"/start", nil), 304)
			s.runs()
			s.hasAllOfImage()
		},
	},
	{
		name: "start of one that ends", prepare: func(s *stage) { s.box(script(13), object{}) }, shim: true,
		do: func(s *stage) error { return s.post("/containers/"+s.name+"/start", nil) },
		again: func(s *stage, err error) {
			switch state := s.d.stateOf(s.name); {
			case err == nil && s.killed:
				s.ends("exited 137", "exited 13")
			case err == nil || state == "running" || state == "exited 13":
				s.ends("exited 13")
			case s.killed:
				s.must("start again", s.post("/containers/"+s.name+"/start", nil))
				s.ends("exited 13")
			case state != "created":
				s.errorf("is %s", state)
			}
		},
	},
	{
		name: "start of one that is removed at its end", shim: true,
		prepare: func(s *stage) { s.box(script(13), object{"AutoRemove": true}) },
		do:      func(s *stage) error { return s.post("/containers/"+s.name+"/start", nil) },
		again:   func(s *stage, _ error) { s.ends("gone") },
	},
	{
		name: "exec", prepare: (*stage).running, shim: true,
		do: (*stage).exec,
		again: func(s *stage, _ error) {
			if s.killed {
				s.revive()
			}
			s.must("exec again", s.exec())
			s.runs()
		},
	},
	{
		name: "stop", prepare: (*stage).running, shim: true,
		do: func(s *stage) error { return s.post("/containers/"+s.name+"/stop?t=30", nil) },
		again: func(s *stage, _ error) {
			s.must("stop again", s.post("/containers/"+s.name+"/stop?t=30", nil), 304)
			if s.killed {
				s.ends("exited 5", "exited 137")
			} else {
				s.ends("exited 5")
			}
			s.revive()
		},
	},
	{
		name: "kill", prepare: (*stage).running, shim: true,
		do: func(s *stage) error { return s.post("/containers/"+s.name+"/kill", nil) },
		again: func(s *stage, _ error) {
			s.must("kill again", s.post("/containers/"+s.name+"/kill", nil), 409)
			s.ends("exited 137")
			s.revive()
		},
	},
	{
		name: "restart", prepare: (*stage).running, shim: true,
		do: func(s *stage) error { return s.post("/containers/"+s.name+"/restart?t=30", nil) },
		again: func(s *stage, err error) {
			s.must("restart again", s.post("/containers/"+s.name+"/restart?t=1", nil)) // its trap may not be set yet
			s.runs()
		},
	},
	{
		name: "remove", prepare: (*stage).running, shim: true,
		do: func(s *stage) error { return s.delete("/containers/" + s.name + "?force=1&v=1") },
		again: func(s *stage, err error) {
			s.must("remove again", s.delete("/containers/"+s.name+"?force=1&v=1"), 404, 409)
			s.ends("gone")
		},
	},
	{
		name: "pause", prepare: (*stage).running, shim: true,
		do: func(s *stage) error { return s.post("/containers/"+s.name+"/pause", nil) },
		again: func(s *stage, err error) {
			if !s.killed {
				s.is(err, "paused", "running")
			}
			s.revive()
		},
	},
	{
		name: "unpause", shim: true,
		prepare: func(s *stage) { s.running(); s.must("pause", s.post("/containers/"+s.name+"/pause", nil)) },
		do:      func(s *stage) error { return s.post("/containers/"+s.name+"/unpause", nil) },
		again: func(s *stage, err error) {
			if !s.killed {
				s.is(err, "running", "paused")
			}
			s.revive()
		},
	},
	{
		name: "rename", prepare: (*stage).running,
		do: func(s *stage) error { return s.post("/containers/"+s.name+"/rename?name="+s.name+"new", nil) },
		again: func(s *stage, err error) {
			if err != nil {
				s.must("rename again", s.post("/containers/"+s.name+"/rename?name="+s.name+"new", nil), 404)
			}
			if state := s.d.stateOf(s.name); state != "gone" {
				s.errorf("the old name is still there: %s", state)
			}
			s.name += "new"
			s.runs()
		},
	},
	{
		name: "update", prepare: (*stage).running, shim: true,
		do: func(s *stage) error {
			return s.post("/containers/"+s.name+"/update", object{"Memory": 64 << 20, "MemorySwap": 64 << 20})
		},
		again: func(s *stage, err error) {
			if s.killed {
				s.revive()
			}
			s.must("update again", s.post("/containers/"+s.name+"/update", object{"Memory": 64 << 20, "MemorySwap": 64 << 20}))
			s.runs()
		},
	},
	{
		name: "copy into", prepare: (*stage).made,
		do: (*stage).copyInto,
		again: func(s *stage, err error) {
			s.must("copy again", s.copyInto())
			var out []byte
			s.must("copy out", s.d.sure("GET", "/containers/"+s.name+"/archive?path=/copied", nil, &out))
			if !bytes.Contains(out, []byte(s.name)) {
				s.errorf("the file that was copied is not there")
			}
		},
	},
	{
		name: "commit", prepare: (*stage).running,
		do: (*stage).commit,
		again: func(s *stage, err error) {
			s.ends("running") // and is not held
			if err != nil {
				s.must("commit again", s.commit())
			}
			s.makesContainers("img" + s.name)
			// A first image, made without an answer, has lost its name to the second.
			s.must("prune images", s.post(`/images/prune?filters={"dangling":{"true":true}}`, nil))
		},
	},
	{
		name: "load", do: (*stage).load,
		again: func(s *stage, err error) {
			if err != nil {
				s.must("load again", s.load())
			}
			s.makesContainers(s.name)
		},
	},
	{
		name: "import",
		do:   (*stage).importTar,
		again: func(s *stage, err error) {
			if err != nil {
				s.must("import again", s.importTar())
			}
			s.makesContainers(s.name)
			// A first image, made without an answer, has lost its name to the second.
			s.must("prune images", s.post(`/images/prune?filters={"dangling":{"true":true}}`, nil))
		},
	},
	{
		name: "save", prepare: func(s *stage) { s.must("load", s.load()) },
		do: func(s *stage) error { return s.whole("/images/" + s.name + ":latest/get") },
		again: func(s *stage, _ error) {
			s.must("save again", s.whole("/images/"+s.name+":latest/get"))
			s.makesContainers(s.name)
		},
	},
	{
		name: "export", prepare: (*stage).running,
		do: func(s *stage) error { return s.whole("/containers/" + s.name + "/export") },
		again: func(s *stage, _ error) {
			s.must("export again", s.whole("/containers/"+s.name+"/export"))
			s.runs()
		},
	},
	{
		name: "remove of an image", prepare: func(s *stage) { s.must("load", s.load()) },
		do: func(s *stage) error { return s.delete("/images/" + s.name + ":latest") },
		again: func(s *stage, err error) {
			s.must("remove again", s.delete("/images/"+s.name+":latest"), 404)
			s.must("load again", s.load())
			s.makesContainers(s.name)
		},
	},
	{
		name: "pull", prepare: (*stage).pushed,
		do: (*stage).pull,
		again: func(s *stage, err error) {
			if err != nil {
				s.must("pull again", s.pull())
			}
			s.makesContainers(s.registry.Addr + "/" + s.name)
		},
	},
	{
		name: "push", prepare: (*stage).tagged,
		do: (*stage).push,
		again: func(s *stage, err error) {
			s.must("push again", s.push())
			s.removeTagged()
			s.must("pull", s.pull())
			s.makesContainers(s.registry.Addr + "/" + s.name)
		},
	},
	{
		name: "tag", prepare: func(s *stage) { s.must("load", s.load()) },
		do: func(s *stage) error { return s.post("/images/"+s.name+":latest/tag?repo="+s.name+"&tag=two", nil) },
		again: func(s *stage, err error) {
			s.must("tag again", s.post("/images/"+s.name+":latest/tag?repo="+s.name+"&tag=two", nil))
			s.must("remove the first", s.delete("/images/"+s.name+":latest"))
			s.must("inspect", s.d.sure("GET", "/images/"+s.name+":two/json", nil, nil))
			s.must("remove the second", s.delete("/images/"+s.name+":two"))
		},
	},
	{
		name: "create of a network",
		do:   func(s *stage) error { return s.post("/networks/create", object{"Name": s.name}) },
		again: func(s *stage, err error) {
			s.undo = append(s.undo, func() { s.must("remove network", s.delete("/networks/"+s.name)) })
			s.must("create again", s.post("/networks/create", object{"Name": s.name}), 409)
			s.box(script(0), object{"NetworkMode": s.name})
			s.must("start", s.post("/containers/"+s.name+"/start", nil))
			s.runs()
		},
	},
	{
		name: "remove of a network", prepare: func(s *stage) { s.must("create network", s.post("/networks/create", object{"Name": s.name})) },
		do: func(s *stage) error { return s.delete("/networks/" + s.name) },
		again: func(s *stage, err error) {
			s.must("remove again", s.delete("/networks/"+s.name), 404)
		},
	},
	{
		name: "connect to a network", prepare: func(s *stage) { s.network(); s.running() },
		do: func(s *stage) error { return s.post("/networks/"+s.name+"/connect", object{"Container": s.name}) },
		again: func(s *stage, err error) {
			if err != nil {
				s.must("connect again", s.post("/networks/"+s.name+"/connect", object{"Container": s.name}), 403, 409)
			}
			s.runs()
			s.hasLinks(3)
		},
	},
	{
		name: "disconnect from a network",
		prepare: func(s *stage) {
			s.network()
			s.running()
			s.must("connect", s.post("/networks/"+s.name+"/connect", object{"Container": s.name}))
		},
		do: func(s *stage) error { return s.post("/networks/"+s.name+"/disconnect", object{"Container": s.name}) },
		again: func(s *stage, err error) {
			if err != nil {
				s.must("disconnect again", s.post("/networks/"+s.name+"/disconnect", object{"Container": s.name}), 403, 404)
			}
			s.runs()
			s.hasLinks(2)
		},
	},
	{
		name: "create of a volume",
		do:   func(s *stage) error { return s.post("/volumes/create", object{"Name": s.name}) },
		again: func(s *stage, err error) {
			s.must("create again", s.post("/volumes/create", object{"Name": s.name}))
			s.must("remove", s.delete("/volumes/"+s.name))
		},
	},
	{
		name: "remove of a volume", prepare: func(s *stage) { s.must("create", s.post("/volumes/create", object{"Name": s.name})) },
		do: func(s *stage) error { return s.delete("/volumes/" + s.name) },
		again: func(s *stage, err error) {
			s.must("remove again", s.delete("/volumes/"+s.name), 404)
		},
	},
}

func (s *stage) post(path string, body any) error { return s.d.call("POST", path, body, nil) }
func (s *stage) delete(path string) error         { return s.d.call("DELETE", path, nil, nil) }

// network makes one of the stage's name.
func (s *stage) network() {
	s.must("create network", s.post("/networks/create", object{"Name": s.name}))
	s.undo = append(s.undo, func() { s.must("remove network", s.delete("/networks/"+s.name)) })
}

// create asks for a container with a new volume, into which the image has
// something to be copied, a published port, and the stage's network if it has one.
func (s *stage) create() error {
	s.undo = append(s.undo, func() { s.must("remove volume", s.delete("/volumes/"+s.name), 404) }, s.removeBox)
	host := object{
		"Binds":        []string{s.name + ":/bin"},
		"PortBindings": object{"80/tcp": []object{{"HostIp": "127.0.0.1", "HostPort": "28080"}}},
	}
	if s.d.sure("GET", "/networks/"+s.name, nil, nil) == nil {
		host["NetworkMode"] = s.name
	}
	return s.post("/containers/create?name="+s.name, object{
		"Image": "busybox", "Cmd": script(0), "ExposedPorts": object{"80/tcp": object{}}, "HostConfig": host,
	})
}

func (s *stage) removeBox() {
	s.must("remove container", s.delete("/containers/"+s.name+"?force=1&v=1"), 404, 409)
}

func (s *stage) made() { s.must("create", s.create()) }

// box makes a container of the stage's name.
func (s *stage) box(cmd []string, host object) {
	s.undo = append(s.undo, s.removeBox)
	s.must("create", s.post("/containers/create?name="+s.name, object{"Image": "busybox", "Cmd": cmd, "HostConfig": host}))
}

// running makes one that runs, and has its trap set.
func (s *stage) running() {
	s.box(script(0), object{"Binds": []string{"/anonymous"}})
	s.must("start", s.post("/containers/"+s.name+"/start", nil))
	s.said("hello")
}

// said waits until the container has said something.
func (s *stage) said(what string) {
	rig.Eventually(s.t, func() error {
		var out []byte
		if err := s.d.sure("GET", "/containers/"+s.name+"/logs?stdout=1&tail=1", nil, &out); err != nil {
			return err
		}
		if !bytes.Contains(out, []byte(what)) {
			return fmt.Errorf("%s: the container said %q", s.what, out)
		}
		return nil
	})
}

// is proves that the container is in state, or, where the client has no answer, that
// or in one of others.
func (s *stage) is(err error, state string, others ...string) {
	s.t.Helper()
	now := s.d.stateOf(s.name)
	ok := now == state
	for _, o := range others {
		ok = ok || err != nil && now == o
	}
	if !ok {
		s.errorf("the container is %s; the client was told %v", now, err)
	}
}

// ends waits until the container is in one of states.
func (s *stage) ends(states ...string) {
	s.t.Helper()
	now := ""
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		now = s.d.stateOf(s.name)
		for _, want := range states {
			if now == want {
				return
			}
		}
	}
	s.errorf("the container is %s, and was to be %s", now, strings.Join(states, " or "))
}

// runs proves that the container runs, and answers.
func (s *stage) runs() {
	s.t.Helper()
	s.is(nil, "running")
	s.must("exec", s.exec())
}

// revive makes the container run again, whose shim may have been killed just now.
func (s *stage) revive() {
	s.t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if err = s.exec(); err == nil {
			return
		}
		if s.d.stateOf(s.name) == "paused" {
			_ = s.post("/containers/"+s.name+"/unpause", nil) // which its shim may not live to do
			continue
		}
		s.must("start again", s.post("/containers/"+s.name+"/start", nil), 304, 409)
	}
	s.errorf("the container does not run again: %v", err)
}

// exec runs a program in the container, which says something and ends.
func (s *stage) exec() error {
	out, err := s.output("sh", "-c", "echo said; exit 3")
	if err == nil && out != "said\n" {
		err = fmt.Errorf("exec said %q", out)
	}
	return err
}

func (s *stage) output(cmd ...string) (string, error) {
	var made struct{ ID string }
	if err := s.d.call("POST", "/containers/"+s.name+"/exec", object{"AttachStdout": true, "Cmd": cmd}, &made); err != nil {
		return "", err
	}
	var out []byte
	err := s.d.call("POST", "/exec/"+made.ID+"/start", object{}, &out)
	return demux(out), err
}

// hasAllOfImage proves that all of the image is in the volume.
func (s *stage) hasAllOfImage() {
	s.t.Helper()
	out, err := s.output("sh", "-c", "busybox --list | while read a; do [ -e /bin/$a ] || echo $a; done")
	if err != nil || strings.TrimSpace(out) != "" {
		s.errorf("the volume has not all of the image, but lacks %q %v", out, err)
	}
}

// hasLinks counts the container's network devices.
func (s *stage) hasLinks(n int) {
	s.t.Helper()
	out, err := s.output("ls", "/sys/class/net")
	if got := len(strings.Fields(out)); err != nil || got != n {
		s.errorf("the container has the links %q (%v), and was to have %d", out, err, n)
	}
}

func (s *stage) copyInto() error {
	var data bytes.Buffer
	if err := rig.Tar([]rig.File{{Name: "copied", Mode: 0o644, Data: []byte(s.name)}})(&data); err != nil {
		return err
	}
	return s.d.call("PUT", "/containers/"+s.name+"/archive?path=/", &data, nil)
}

func (s *stage) commit() error {
	return s.post("/commit?container="+s.name+"&repo=img"+s.name+"&tag=latest", object{})
}

// load loads an image that has the stage's name.
func (s *stage) load() error {
	dir := rig.Dir(s.t)
	l, err := rig.NewLayout(dir)
	if err == nil {
		err = l.Base(rig.Busybox(s.t))
	}
	if err == nil {
		err = l.Layer(rig.Tar([]rig.File{{Name: s.name, Mode: 0o644, Data: bytes.Repeat([]byte(s.name), 50000)}}))
	}
	if err == nil {
		err = l.Finish(s.name+":latest", ocispec.ImageConfig{Cmd: []string{"true"}})
	}
	var data bytes.Buffer
	if err == nil {
		err = rig.Archive(&data, dir)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	var out []byte
	if err := s.d.call("POST", "/images/load?quiet=1", &data, &out); err != nil {
		return err
	}
	if bytes.Contains(out, []byte("errorDetail")) {
		return fmt.Errorf("load: %s", out)
	}
	if !json.Valid(bytes.TrimSpace(out)) {
		return fmt.Errorf("load was cut off: %q", out)
	}
	return nil
}

// importTar makes an image of the stage's name from the files of busybox.
func (s *stage) importTar() error {
	layer, _ := s.n.layer()
	var out []byte
	if err := s.d.call("POST", "/images/create?fromSrc=-&repo="+s.name+"&tag=latest", bytes.NewReader(layer), &out); err != nil {
		return err
	}
	if !json.Valid(bytes.TrimSpace(out)) || bytes.Contains(out, []byte("errorDetail")) {
		return fmt.Errorf("import: %q", out)
	}
	return nil
}

// whole asks for a tar, and reads it to its end.
func (s *stage) whole(path string) error {
	var out []byte
	if err := s.d.call("GET", path, nil, &out); err != nil {
		return err
	}
	r := tar.NewReader(bytes.NewReader(out))
	for n := 0; ; n++ {
		if _, err := r.Next(); err == io.EOF && n > 0 {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: after %d entries: %w", path, n, err)
		}
	}
}

// tagged loads an image that can be pushed, removeTagged removes it.
func (s *stage) tagged() {
	s.must("load", s.load())
	s.must("tag", s.post("/images/"+s.name+":latest/tag?repo="+s.registry.Addr+"/"+s.name+"&tag=latest", nil))
}

func (s *stage) removeTagged() {
	s.must("remove image", s.delete("/images/"+s.registry.Addr+"/"+s.name+":latest"))
	s.must("remove image", s.delete("/images/"+s.name+":latest"))
}

// pushed leaves an image in the registry alone.
func (s *stage) pushed() {
	s.tagged()
	s.must("push", s.push())
	var is struct {
		RootFS struct{ Layers []digest.Digest }
	}
	s.must("inspect", s.d.sure("GET", "/images/"+s.name+":latest/json", nil, &is))
	s.chain = identity.ChainID(is.RootFS.Layers).String()
	s.removeTagged()
	collect(s.t, s.n)
}

func (s *stage) push() error {
	return s.transfer("/images/" + s.registry.Addr + "/" + s.name + "/push?tag=latest")
}

func (s *stage) pull() error {
	return s.transfer("/images/create?fromImage=" + s.registry.Addr + "/" + s.name + "&tag=latest")
}

// transfer asks for a pull or a push, whose errors are told in its progress.
func (s *stage) transfer(path string) error {
	var out []byte
	if err := s.d.call("POST", path, nil, &out); err != nil {
		return err
	}
	if bytes.Contains(out, []byte("errorDetail")) {
		return fmt.Errorf("%s", out)
	}
	return nil
}

// makesContainers proves that an image is whole: a container of it runs. The image
// is removed then.
func (s *stage) makesContainers(image string) {
	s.t.Helper()
	box := "of" + s.name
	s.must("create of "+image, s.post("/containers/create?name="+box, object{"Image": image, "Cmd": []string{"sh", "-c", "exit 9"}}))
	s.must("start", s.post("/containers/"+box+"/start", nil))
	was := s.name
	s.name = box
	s.ends("exited 9")
	s.name = was
	s.must("remove", s.delete("/containers/"+box+"?force=1"))
	s.must("remove of "+image, s.delete("/images/"+image+":latest"))
}
