package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"
)

// restart kills gantryd, starts it again, and asks until it answers and until it
// tells of every container, all of which run.
func (w *world) restart(r *report, tb testing.TB, title string) {
	const times = 5
	names := make([]string, *known)
	for i := range names {
		names[i] = fmt.Sprintf("k%d", i)
	}
	if err := atATime(8, len(names), func(i int) error {
		return w.gantry.try("run", "-d", "--name", names[i], "--network", "none", busybox, "sleep", "100000")
	}); err != nil {
		tb.Fatal(err)
	}
	api := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", w.gantryd.Socket)
		},
	}}
	var answers, all []float64
	for range times {
		w.gantryd.Kill()
		start := time.Now()
		w.gantryd.Start(tb)
		until(tb, func() error { return ask(&api, "/_ping", nil) })
		answers = append(answers, ms(time.Since(start)))
		until(tb, func() error {
			var running []struct{ ID string }
			err := ask(&api, "/containers/json", &running)
			if err == nil && len(running) != *known {
				err = fmt.Errorf("%d containers run, not %d", len(running), *known)
			}
			return err
		})
		all = append(all, ms(time.Since(start)))
	}
	w.ourDaemons = []int{w.gantryd.Cmd.Process.Pid}
	r.row("\n## %s\n\n%d containers of `sleep` run, gantryd is killed and started; medians of %d.\n", title, *known, times)
	r.row("| | ms |\n| --- | --: |\n| until it answers | %.1f |\n| until it lists all as running | %.1f |", median(answers), median(all))
	if err := inLots(names, func(lot []string) error { return w.gantry.with("rm", "-f").try(lot...) }); err != nil {
		tb.Fatal(err)
	}
}

// until asks every millisecond: rig.Eventually is too slow to measure with.
func until(tb testing.TB, condition func() error) {
	tb.Helper()
	end := time.Now().Add(deadline)
	for err := condition(); err != nil; err = condition() {
		if time.Now().After(end) {
			tb.Fatalf("not within %v: %v", deadline, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// ask gets something of the Engine API.
func ask(api *http.Client, path string, into any) error {
	resp, err := api.Get("http://engine" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", path, resp.Status)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}
