package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/gantryd/gantry/api/journey"
	"github.com/gantryd/gantry/cli/internal/client"
)

func explainFlag(f *pflag.FlagSet, on *bool) {
	f.BoolVar(on, "explain", false, "Print what each part did for this start, and how\nlong it took")
}

// explainHeader asks the engine to note the journey of a request.
func explainHeader(on bool) map[string]string {
	if !on {
		return nil
	}
	return map[string]string{"X-Gantry-Explain": "1"}
}

// watch begins to note our own requests.
func (c *cli) watch(on bool) {
	if !on {
		return
	}
	cl, err := c.engine()
	if err != nil {
		return // the first request will say it
	}
	c.spans = append(c.spans, journey.Span{Part: "cli", Name: "start the program and read the command line", Start: c.began, Took: time.Since(c.began)})
	cl.Observe = func(name string, start time.Time, took time.Duration) {
		c.spans = append(c.spans, journey.Span{Part: "cli", Name: name, Start: start, Took: took})
	}
}

// explained prints the journey of a start, ours and the engine's.
func (c *cli) explained(ctx context.Context, on bool, id string) error {
	if !on {
		return nil
	}
	c.client.Observe = nil
	spans := c.spans
	var theirs []journey.Span
	err := c.client.Get(ctx, "/containers/"+id+"/journey", nil, &theirs)
	if client.StatusOf(err) == http.StatusNotFound || client.StatusOf(err) == http.StatusNotImplemented {
		fmt.Fprintf(c.std.Err, "The engine at %s does not explain; these are the client's own steps.\n", c.client.Endpoint.Address)
	} else if err != nil {
		return fmt.Errorf("ask for the journey: %w", err)
	}
	_, err = fmt.Fprint(c.std.Err, drawJourney(append(spans, theirs...)))
	return err
}

// depth is how far down the chain a part stands.
func depth(part string) int {
	return max(0, slices.Index([]string{"cli", "engine", "lifecycle", "shim", "runtime", "child"}, part))
}

// drawJourney lists spans by time, indented by part:
//
//	   at      took
//	0.0ms    1.2ms  cli        start the program and read the command line
//	1.3ms    2.1ms    engine     POST /containers/create
func drawJourney(spans []journey.Span) string {
	if len(spans) == 0 {
		return ""
	}
	slices.SortStableFunc(spans, func(a, b journey.Span) int {
		return cmp.Or(a.Start.Compare(b.Start), depth(a.Part)-depth(b.Part))
	})
	ids := regexp.MustCompile(`([0-9a-f]{12})[0-9a-f]{52}`) // of containers, to their short form
	first, end := spans[0].Start, spans[0].Start
	var b strings.Builder
	fmt.Fprintf(&b, "\n%9s %9s\n", "at", "took")
	for _, s := range spans {
		if e := s.Start.Add(s.Took); e.After(end) {
			end = e
		}
		fmt.Fprintf(&b, "%9s %9s  %s%-*s %s", ms(s.Start.Sub(first)), ms(s.Took),
			strings.Repeat("  ", depth(s.Part)), 10, s.Part, ids.ReplaceAllString(s.Name, "$1"))
		if s.Detail != "" {
			fmt.Fprintf(&b, "  (%s)", cut(ids.ReplaceAllString(s.Detail, "$1"), widest))
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "%9s %9s  total\n", "", ms(end.Sub(first)))
	return b.String()
}

// widest is the number of bytes that are shown of a span's detail.
const widest = 72

func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return s[:most] + "…"
}

func ms(d time.Duration) string {
	return fmt.Sprintf("%.2fms", float64(d)/float64(time.Millisecond))
}
