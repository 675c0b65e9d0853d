package cli

import (
	"context"
	"net/http"
	"net/url"
	"os"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/option"
)

type execOptions struct {
	detach     bool
	detachKeys string
	env        []string
	envFiles   []string
	stdin      bool
	privileged bool
	tty        bool
	user       string
	workdir    string
}

func execCommand(c *cli) *cobra.Command {
	var o execOptions
	cmd := &cobra.Command{
		Use:   "exec [OPTIONS] CONTAINER COMMAND [ARG...]",
		Short: "Execute a command in a running container",
		Args:  minArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.exec(cmd.Context(), args[0], args[1:], &o)
		},
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&o.detach, "detach", "d", false, "Detached mode: run command in the background")
	f.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	f.VarP(newList(&o.env, option.CheckEnv), "env", "e", "Set environment variables")
	f.Var(newList(&o.envFiles, nil), "env-file", "Read in a file of environment variables")
	f.BoolVarP(&o.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	f.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to the command")
	f.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	f.StringVarP(&o.user, "user", "u", "", "Username or UID (format: \"<name|uid>[:<group|gid>]\")")
	f.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	aliases(cmd, "container exec", "exec")
	return cmd
}

// exec runs a command in a container: create, start with the connection taken
// over, and afterwards the exit code. Whether the container is there is told by
// the first of them.
func (c *cli) exec(ctx context.Context, name string, command []string, o *execOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !o.detach {
		if err := c.checkTTY(o.stdin, o.tty); err != nil {
			return err
		}
	}
	env, err := option.KeyFiles(o.envFiles, o.env, os.LookupEnv)
	if err != nil {
		return err
	}
	keys, pressed, err := c.detachKeys(o.detachKeys)
	if err != nil {
		return err
	}
	cl, err := c.engine()
	if err != nil {
		return err
	}
	req := container.ExecCreateRequest{
		User: o.user, Privileged: o.privileged, Tty: o.tty, AttachStdin: o.stdin && !o.detach, AttachStdout: !o.detach,
		AttachStderr: !o.detach, DetachKeys: keys, Env: env, WorkingDir: o.workdir, Cmd: command,
	}
	var size *[2]uint
	if o.tty && !o.detach {
		if s := c.consoleSize(); s != [2]uint{} {
			size = &s
		}
	}
	req.ConsoleSize = size
	var made container.ExecCreateResponse
	if err := cl.Post(ctx, "/containers/"+url.PathEscape(name)+"/exec", nil, req, &made); err != nil {
		return err
	}
	path := "/exec/" + made.ID
	start := container.ExecStartRequest{Detach: o.detach, Tty: o.tty, ConsoleSize: size}
	if o.detach {
		return execError(cl.Post(ctx, path+"/start", nil, start, nil))
	}
	pending, err := cl.Send(ctx, client.Request{Method: http.MethodPost, Path: path + "/start", JSON: start, Upgrade: true})
	if err != nil {
		return err
	}
	stream, err := pending.ReceiveStream()
	if err != nil {
		return execError(err)
	}
	if o.tty {
		defer c.followSize(ctx, cl, path+"/resize")()
	}
	a := c.streams(o.stdin, true, true, o.tty)
	a.detachKeys = pressed
	if err := a.copy(ctx, stream); err != nil {
		return err
	}
	var info container.ExecInspectResponse
	if err := cl.Get(ctx, path+"/json", nil, &info); err != nil {
		return err
	}
	if info.ExitCode == nil {
		return nil
	}
	return exit(*info.ExitCode)
}

// execError gives a command that could not be started the shell's exit codes.
func execError(err error) error {
	if err == nil {
		return nil
	}
	if code := startCode(err); code != exitEngine {
		return &statusError{code: code, err: err}
	}
	return err
}
