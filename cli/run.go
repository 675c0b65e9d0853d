package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/option"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

// runOptions are the options of run beyond those of create.
type runOptions struct {
	creation
	detach     bool
	sigProxy   bool
	detachKeys string
}

func runCommand(c *cli) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short: "Create and run a new container from an image",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.opts.Image, o.opts.Command = args[0], args[1:]
			return c.run(cmd, &o)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	o.addFlags(f)
	f.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	f.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	explainFlag(f, &o.explain)
	aliases(cmd, "container run", "run")
	return cmd
}

func (c *cli) run(cmd *cobra.Command, o *runOptions) error {
	body, err := o.body()
	if err != nil {
		return withHelp(cmd, err, exitEngine)
	}
	if o.detach {
		if len(o.opts.Attach) > 0 {
			return errors.New("conflicting options: cannot specify both --attach and --detach")
		}
		body.AttachStdin, body.AttachStdout, body.AttachStderr, body.StdinOnce = false, false, false, false
	} else if err := c.checkTTY(body.AttachStdin, body.Tty); err != nil {
		return err
	}
	if body.Tty {
		body.HostConfig.ConsoleSize = c.consoleSize()
	}
	keys, pressed, err := c.detachKeys(o.detachKeys)
	if err != nil {
		return withHelp(cmd, err, exitEngine)
	}
	ctx := cmd.Context()
	c.watch(o.explain)
	id, err := c.create(ctx, &o.creation, body)
	if err != nil {
		return withHelp(cmd, err, exitEngine)
	}
	if o.detach {
		err := c.startCreated(ctx, id, o.explain)
		fmt.Fprintln(c.std.Out, id) // one that did not start is there too
		if err != nil {
			return withHelp(cmd, err, startCode(err))
		}
		return c.explained(ctx, o.explain, id)
	}
	r := &foreground{c: c, cl: c.client, id: id, opts: o, body: body, keys: keys, pressed: pressed}
	code, err := r.run(ctx)
	if err != nil {
		return withHelp(cmd, err, code)
	}
	if err := c.explained(ctx, o.explain, id); err != nil {
		return err
	}
	return exit(code)
}

func (c *cli) startCreated(ctx context.Context, id string, explain bool) error {
	return c.client.Call(ctx, client.Request{Method: http.MethodPost, Path: "/containers/" + id + "/start", Header: explainHeader(explain)}, nil)
}

// foreground is one run that the user watches.
type foreground struct {
	c       *cli
	cl      *client.Client
	id      string
	opts    *runOptions
	body    *option.Body
	keys    string
	pressed []byte
}

// run attaches, starts and waits, and returns the exit code of the process.
//
//	attach ──▶ (101)   both are open before the start, so that no byte of output
//	wait   ──▶ (200)   and no exit code is missed
//	start  ──▶
//	attach ◀── output … end
//	wait   ◀── exit code
func (r *foreground) run(ctx context.Context) (code int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := r.body
	attach := b.AttachStdin || b.AttachStdout || b.AttachStderr
	var attaching *client.Pending
	if attach {
		if attaching, err = r.cl.Send(ctx, attachRequest(r.id, b.AttachStdin, b.AttachStdout, b.AttachStderr, false, r.keys)); err != nil {
			return exitEngine, err
		}
	}
	condition := "next-exit"
	if b.HostConfig.AutoRemove {
		condition = "removed"
	}
	waiting, err := r.cl.Send(ctx, client.Request{Method: http.MethodPost, Path: "/containers/" + r.id + "/wait", Query: url.Values{"condition": {condition}}})
	if err != nil {
		return exitEngine, err
	}
	var stream *client.Stream
	if attach {
		if stream, err = attaching.ReceiveStream(); err != nil {
			return exitEngine, err
		}
		defer stream.Close()
	}
	wait, err := waiting.Receive()
	if err != nil {
		return exitEngine, err
	}
	defer wait.Body.Close()

	if r.opts.sigProxy {
		defer r.c.forward(ctx, r.cl, r.id)()
	}
	copied := make(chan error, 1)
	if attach {
		a := r.c.streams(b.AttachStdin, b.AttachStdout, b.AttachStderr, b.Tty)
		a.detachKeys = r.pressed
		copyCtx, stop := context.WithCancel(ctx)
		defer stop()
		go func() { copied <- a.copy(copyCtx, stream) }()
	} else {
		copied <- nil
	}
	if err := r.c.startCreated(ctx, r.id, r.opts.explain); err != nil {
		cancel()
		<-copied // the terminal is as it was before the error is printed
		return startCode(err), err
	}
	if b.Tty {
		defer r.c.followSize(ctx, r.cl, "/containers/"+r.id+"/resize")()
	}
	if err := <-copied; errors.Is(err, terminal.ErrDetached) {
		return 0, nil
	} else if err != nil {
		return 1, &statusError{code: 1, err: err} // it had started: no fault of the options
	}
	return exitStatus(wait)
}

// exitStatus reads the answer of wait.
func exitStatus(wait *client.Response) (int, error) {
	var w container.WaitResponse
	if err := json.NewDecoder(wait.Body).Decode(&w); err != nil {
		return exitEngine, fmt.Errorf("wait for the container's exit: %w", err)
	}
	if w.Error != nil && w.Error.Message != "" {
		return exitEngine, errors.New(w.Error.Message)
	}
	return int(w.StatusCode), nil
}

// attachRequest asks for the streams of a container.
func attachRequest(id string, stdin, stdout, stderr, logs bool, keys string) client.Request {
	q := url.Values{"stream": {"1"}}
	for name, on := range map[string]bool{"stdin": stdin, "stdout": stdout, "stderr": stderr, "logs": logs} {
		if on {
			q.Set(name, "1")
		}
	}
	if keys != "" {
		q.Set("detachKeys", keys)
	}
	return client.Request{Method: http.MethodPost, Path: "/containers/" + id + "/attach", Query: q, Upgrade: true}
}
