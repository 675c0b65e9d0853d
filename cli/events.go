package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/template"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/client"
	"github.com/gantryd/gantry/cli/internal/format"
)

// nanoTime is RFC 3339 with all nine digits, so that columns stay columns.
const nanoTime = "2006-01-02T15:04:05.000000000Z07:00"

// event is what templates and JSON see: engines before 1.52 also say status, id
// and from, and users' templates name them.
type event struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	events.Message
}

func eventsCommand(c *cli) *cobra.Command {
	var since, until, text string
	var filter filters
	cmd := &cobra.Command{
		Use:   "events [OPTIONS]",
		Short: "Get real time events from the server",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			q := url.Values{}
			now := time.Now()
			for key, s := range map[string]string{"since": since, "until": until} {
				if s == "" {
					continue
				}
				at, err := timestamp(s, now)
				if err != nil {
					return err
				}
				q.Set(key, at)
			}
			if err := filter.into(q); err != nil {
				return err
			}
			return c.events(cmd, q, text)
		},
	}
	f := cmd.Flags()
	filterFlag(cmd, &filter, "f", "Filter output based on conditions provided")
	f.StringVar(&text, "format", "", formatUsage)
	f.StringVar(&since, "since", "", "Show all events created since timestamp")
	f.StringVar(&until, "until", "", "Stream events until this timestamp")
	aliases(cmd, "system events", "events")
	return cmd
}

func (c *cli) events(cmd *cobra.Command, q url.Values, text string) error {
	var t *template.Template
	if text == "json" {
		text = "{{json .}}"
	}
	if text != "" {
		var err error
		if t, err = format.Parse(text); err != nil {
			return &statusError{code: exitUsage, err: err}
		}
	}
	cl, err := c.engine()
	if err != nil {
		return err
	}
	resp, err := cl.Do(cmd.Context(), client.Request{Method: http.MethodGet, Path: "/events", Query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var e event
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := c.printEvent(e, t); err != nil {
			return err
		}
	}
}

func (c *cli) printEvent(e event, t *template.Template) error {
	if t != nil {
		var b strings.Builder
		if err := t.Execute(&b, e); err != nil {
			return err
		}
		_, err := fmt.Fprintln(c.std.Out, b.String())
		return err
	}
	at := time.Unix(e.Time, 0)
	if e.TimeNano != 0 {
		at = time.Unix(0, e.TimeNano)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s %s", at.Format(nanoTime), e.Type, e.Action, e.Actor.ID)
	if len(e.Actor.Attributes) > 0 {
		var attrs []string
		for _, k := range sortedKeys(e.Actor.Attributes) {
			attrs = append(attrs, k+"="+e.Actor.Attributes[k])
		}
		fmt.Fprintf(&b, " (%s)", strings.Join(attrs, ", "))
	}
	_, err := fmt.Fprintln(c.std.Out, b.String())
	return err
}
