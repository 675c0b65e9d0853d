package shim

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/gantryd/gantry/internal/wire"
	"github.com/gantryd/gantry/shim/internal/gate"
	"github.com/gantryd/gantry/shim/internal/taskapi"
	"github.com/gantryd/gantry/shim/internal/ttrpc"
)

// maxEvents bounds the events that wait for a daemon which is away. Beyond it the
// oldest goes; the daemon learns exits from State and Wait too.
const maxEvents = 4096

// publisher forwards events in order. While the daemon is away they wait; its
// address stays the same when it, or another in its place, comes back.
type publisher struct {
	namespace string
	address   string // of the daemon's ttrpc socket; empty where there is none
	binary    string // publishes in that case: containerd runtime v2 README, "publish"
	grpc      string // its -address
	reaper    *reaper
	gate      *gate.Gate

	mu      sync.Mutex
	queue   []*taskapi.Envelope
	sending bool
}

// publish queues e. It does not wait.
func (p *publisher) publish(e taskapi.Event) {
	env := &taskapi.Envelope{
		Timestamp: taskapi.At(time.Now()),
		Namespace: p.namespace,
		Topic:     e.Topic(),
		Event:     &taskapi.Any{TypeURL: e.TypeURL(), Value: wire.Marshal(e)},
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == maxEvents {
		slog.Warn("event is dropped", "topic", p.queue[0].Topic)
		p.queue = slices.Delete(p.queue, 0, 1)
	}
	p.queue = append(p.queue, env)
	p.resume()
}

// resume has the queue sent. The caller holds p.mu.
func (p *publisher) resume() {
	if !p.sending && len(p.queue) > 0 {
		p.sending = true
		go p.send()
	}
}

// send forwards until the queue is empty, and then lets go of the connection.
func (p *publisher) send() {
	var client *ttrpc.Client
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	wait := minWait
	for {
		switch empty, err := p.sendOne(&client); {
		case empty:
			return
		case err != nil:
			time.Sleep(wait)
			wait = min(2*wait, maxWait)
		default:
			wait = minWait
		}
	}
}

// sendOne forwards the oldest event, if there is one.
func (p *publisher) sendOne(client **ttrpc.Client) (empty bool, err error) {
	p.gate.Enter()
	defer p.gate.Leave()
	env := p.head()
	if env == nil {
		return true, nil
	}
	if err := p.forward(client, env); err != nil {
		return false, err
	}
	p.drop(env)
	return false, nil
}

const (
	minWait = 20 * time.Millisecond
	maxWait = 2 * time.Second
	// forwardTimeout is how long a daemon may take for one event.
	forwardTimeout = 10 * time.Second
)

func (p *publisher) head() *taskapi.Envelope {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		p.queue, p.sending = nil, false
		return nil
	}
	return p.queue[0]
}

// drop takes env off the queue, if it is still there.
func (p *publisher) drop(env *taskapi.Envelope) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) > 0 && p.queue[0] == env {
		p.queue = p.queue[1:]
	}
}

// forward delivers one event; an error means that it should be tried again.
func (p *publisher) forward(client **ttrpc.Client, env *taskapi.Envelope) error {
	if p.address == "" {
		return p.run(env)
	}
	if *client == nil {
		c, err := ttrpc.Dial(p.address)
		if err != nil {
			return err
		}
		*client = c
	}
	err := (*client).Call("containerd.services.events.ttrpc.v1.Events", "Forward",
		&taskapi.ForwardRequest{Envelope: env}, &taskapi.Empty{}, forwardTimeout)
	if err == nil {
		return nil
	}
	if st, ok := errors.AsType[*ttrpc.Status](err); ok {
		if comingOrGoing(st.Code) {
			return err
		}
		slog.Error("event is refused", "topic", env.Topic, "err", err)
		return nil // it would be refused again
	}
	(*client).Close()
	*client = nil
	return err
}

// comingOrGoing says whether a google.rpc.Code is that of a daemon which starts
// or ends: CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE.
func comingOrGoing(code int32) bool { return code == 1 || code == 4 || code == 14 }

// run publishes by the daemon's binary, which takes the event on stdin.
func (p *publisher) run(env *taskapi.Envelope) error {
	if p.binary == "" {
		return nil
	}
	p.reaper.hold()
	defer p.reaper.release()
	cmd := exec.Command(p.binary, "--address", p.grpc, "publish", "--topic", env.Topic, "--namespace", p.namespace)
	cmd.Stdin = bytes.NewReader(wire.Marshal(env.Event))
	cmd.Env = append(os.Environ(), "NAMESPACE="+p.namespace)
	return cmd.Run()
}

// flush waits until the queue is empty, but not longer than limit.
func (p *publisher) flush(limit time.Duration) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		empty := !p.sending
		p.mu.Unlock()
		if empty {
			return
		}
	}
}
