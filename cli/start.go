package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/terminal"
)

type startOptions struct {
	attach      bool
	interactive bool
	sigProxy    bool
	detachKeys  string
	explain     bool
}

func startCommand(c *cli) *cobra.Command {
	var o startOptions
	cmd := &cobra.Command{
		Use:   "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Start one or more stopped containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := c.engine(); err != nil {
				return err
			}
			c.watch(o.explain)
			if !o.attach && !o.interactive {
				return c.startAll(cmd.Context(), args, o.explain)
			}
			if len(args) > 1 {
				return errors.New("you cannot start and attach multiple containers at once")
			}
			return c.startAttached(cmd.Context(), args[0], &o)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	f.BoolVarP(&o.interactive, "interactive", "i", false, "Attach container's STDIN")
	f.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	f.Lookup("sig-proxy").Hidden = true
	f.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	explainFlag(f, &o.explain)
	aliases(cmd, "container start", "start")
	return cmd
}

// startAll starts one after the other, and says at the end which did not start.
func (c *cli) startAll(ctx context.Context, names []string, explain bool) error {
	var failed []string
	for _, name := range names {
		if err := c.startCreated(ctx, url.PathEscape(name), explain); err != nil {
			fmt.Fprintln(c.std.Err, err)
			failed = append(failed, name)
			continue
		}
		fmt.Fprintln(c.std.Out, name)
		if err := c.explained(ctx, explain, url.PathEscape(name)); err != nil {
			return err
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("Error: failed to start containers: %s", strings.Join(failed, ", "))
	}
	return nil
}

func (c *cli) startAttached(ctx context.Context, name string, o *startOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var info container.InspectResponse
	if err := c.client.Get(ctx, "/containers/"+url.PathEscape(name)+"/json", nil, &info); err != nil {
		return err
	}
	keys, pressed, err := c.detachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	stdin := o.interactive && info.Config.OpenStdin
	attaching, err := c.client.Send(ctx, attachRequest(info.ID, stdin, true, true, false, keys))
	if err != nil {
		return err
	}
	condition := "next-exit"
	if info.HostConfig.AutoRemove {
		condition = "removed"
	}
	waiting, err := c.client.Send(ctx, client.Request{Method: http.MethodPost, Path: "/containers/" + info.ID + "/wait", Query: url.Values{"condition": {condition}}})
	if err != nil {
		return err
	}
	stream, err := attaching.ReceiveStream()
	if err != nil {
		return err
	}
	defer stream.Close()
	wait, err := waiting.Receive()
	if err != nil {
		return err
	}
	defer wait.Body.Close()
	if o.sigProxy && !info.Config.Tty {
		defer c.forward(ctx, c.client, info.ID)()
	}
	a := c.streams(stdin, true, true, info.Config.Tty)
	a.detachKeys = pressed
	copied := make(chan error, 1)
	go func() { copied <- a.copy(ctx, stream) }()
	if err := c.startCreated(ctx, info.ID, o.explain); err != nil {
		cancel()
		<-copied
		return err
	}
	if info.Config.Tty {
		defer c.followSize(ctx, c.client, "/containers/"+info.ID+"/resize")()
	}
	if err := <-copied; errors.Is(err, terminal.ErrDetached) {
		return nil
	} else if err != nil {
		return err
	}
	code, err := exitStatus(wait)
	if err != nil {
		return err
	}
	if err := c.explained(ctx, o.explain, info.ID); err != nil {
		return err
	}
	return exit(code)
}
