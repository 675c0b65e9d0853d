package cli

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/stream"
)

type logsOptions struct {
	follow, timestamps, details bool
	since, until, tail          string
}

func logsCommand(c *cli) *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs [OPTIONS] CONTAINER",
		Short: "Fetch the logs of a container",
		Args:  exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.logs(cmd, args[0], &o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.details, "details", false, "Show extra details provided to logs")
	f.BoolVarP(&o.follow, "follow", "f", false, "Follow log output")
	f.StringVar(&o.since, "since", "", "Show logs since timestamp (e.g.\n\"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\"\nfor 42 minutes)")
	f.StringVarP(&o.tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	f.BoolVarP(&o.timestamps, "timestamps", "t", false, "Show timestamps")
	f.StringVar(&o.until, "until", "", "Show logs before a timestamp (e.g.\n\"2013-01-02T13:23:37Z\") or relative (e.g. \"42m\"\nfor 42 minutes)")
	aliases(cmd, "container logs", "logs")
	return cmd
}

func (c *cli) logs(cmd *cobra.Command, name string, o *logsOptions) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	q := url.Values{"stdout": {"1"}, "stderr": {"1"}, "tail": {o.tail}}
	for key, on := range map[string]bool{"follow": o.follow, "timestamps": o.timestamps, "details": o.details} {
		if on {
			q.Set(key, "1")
		}
	}
	now := time.Now()
	for key, text := range map[string]string{"since": o.since, "until": o.until} {
		if text == "" {
			continue
		}
		at, err := timestamp(text, now)
		if err != nil {
			return fmt.Errorf("invalid value for %q: %w", key, err)
		}
		q.Set(key, at)
	}
	path := "/containers/" + url.PathEscape(name)
	resp, err := cl.Do(cmd.Context(), client.Request{Method: http.MethodGet, Path: path + "/logs", Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	frames, err := c.framed(cmd, cl, resp, path)
	if err != nil {
		return err
	}
	if frames {
		return stream.Demux(c.std.Out, c.std.Err, resp.Body)
	}
	_, err = io.Copy(c.std.Out, resp.Body)
	return err
}

// framed reports whether output comes in frames. Engines say so from API 1.42 on;
// an older one is asked whether the container has a terminal.
func (c *cli) framed(cmd *cobra.Command, cl *client.Client, resp *client.Response, path string) (bool, error) {
	v, err := cl.Version(cmd.Context())
	if err != nil {
		return false, err
	}
	if !client.Less(v, "1.42") {
		return resp.Header.Get("Content-Type") != "application/vnd.docker.raw-stream", nil
	}
	var info container.InspectResponse
	if err := cl.Get(cmd.Context(), path+"/json", nil, &info); err != nil {
		return false, err
	}
	return !info.Config.Tty, nil
}
