package cli

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

type attachOptions struct {
	noStdin    bool
	sigProxy   bool
	detachKeys string
}

func attachCommand(c *cli) *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use:   "attach [OPTIONS] CONTAINER",
		Short: "Attach local standard input, output, and error streams to a running container",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.attach(cmd.Context(), args[0], &o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.noStdin, "no-stdin", false, "Do not attach STDIN")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	f.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	aliases(cmd, "container attach", "attach")
	return cmd
}

func (c *cli) attach(ctx context.Context, name string, o *attachOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cl, err := c.engine()
	if err != nil {
		return err
	}
	// Before anything else: an exit while we look is not missed.
	waiting, err := cl.Send(ctx, client.Request{Method: http.MethodPost, Path: "/containers/" + url.PathEscape(name) + "/wait"})
	if err != nil {
		return err
	}
	var info container.InspectResponse
	if err := cl.Get(ctx, "/containers/"+url.PathEscape(name)+"/json", nil, &info); err != nil {
		return err
	}
	switch {
	case !info.State.Running:
		//lint:ignore ST1005 docker says it so
		return errors.New("You cannot attach to a stopped container, start it first")
	case info.State.Paused:
		//lint:ignore ST1005 docker says it so
		return errors.New("You cannot attach to a paused container, unpause it first")
	case info.State.Restarting:
		//lint:ignore ST1005 docker says it so
		return errors.New("You cannot attach to a restarting container, wait until it is running")
	}
	stdin := !o.noStdin && info.Config.OpenStdin
	if err := c.checkTTY(stdin, info.Config.Tty); err != nil {
		return err
	}
	keys, pressed, err := c.detachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	attaching, err := cl.Send(ctx, attachRequest(info.ID, stdin, true, true, false, keys))
	if err != nil {
		return err
	}
	stream, err := attaching.ReceiveStream()
	if err != nil {
		return err
	}
	defer stream.Close()
	if o.sigProxy && !info.Config.Tty {
		defer c.forward(ctx, cl, info.ID)()
	}
	if info.Config.Tty {
		defer c.followSize(ctx, cl, "/containers/"+info.ID+"/resize")()
	}
	a := c.streams(stdin, true, true, info.Config.Tty)
	a.detachKeys = pressed
	if err := a.copy(ctx, stream); err != nil {
		if errors.Is(err, terminal.ErrDetached) {
			return &statusError{code: 1, err: err}
		}
		return err
	}
	return attachedExit(waiting)
}

// attachedExit is the exit code, which may come some time after the output has
// ended.
func attachedExit(waiting *client.Pending) error {
	wait, err := waiting.Receive()
	if err != nil {
		return err
	}
	defer wait.Body.Close()
	var w container.WaitResponse
	if err := json.NewDecoder(wait.Body).Decode(&w); err != nil {
		return err
	}
	return exit(int(w.StatusCode))
}
