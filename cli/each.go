package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"

	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
)

// atOnce is how many requests a command with many arguments sends at a time.
const atOnce = 50

// each calls do for every argument, several at once, and prints the argument when
// it is done, in order. The errors come last.
func (c *cli) each(ctx context.Context, args []string, do func(ctx context.Context, arg string) error) error {
	errs := make([]error, len(args))
	done := make([]chan struct{}, len(args))
	slots := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range args {
		done[i] = make(chan struct{})
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			defer close(done[i])
			errs[i] = do(ctx, args[i])
		})
	}
	for i, arg := range args {
		<-done[i]
		if errs[i] == nil {
			fmt.Fprintln(c.std.Out, arg)
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// verb is a command that sends one POST per container and prints its name.
func verb(c *cli, name, short string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name + " CONTAINER [CONTAINER...]",
		Short: short,
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.postEach(cmd.Context(), args, name, nil)
		},
	}
	aliases(cmd, "container "+name, name)
	return cmd
}

// postEach sends POST /containers/ARG/VERB for every argument.
func (c *cli) postEach(ctx context.Context, args []string, verb string, q url.Values) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	return c.each(ctx, args, func(ctx context.Context, arg string) error {
		return cl.Call(ctx, client.Request{Method: http.MethodPost, Path: "/containers/" + url.PathEscape(arg) + "/" + verb, Query: q}, nil)
	})
}
