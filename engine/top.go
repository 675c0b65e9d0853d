package engine

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	eventsapi "github.com/moby/moby/api/types/events"
)

// getTop is GET /containers/{id}/top: the host's ps, of the container's processes.
func (c *containers) getTop(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	args := r.FormValue("ps_args")
	if args == "" {
		args = "-ef"
	}
	if err := checkPsArgs(args); err != nil {
		return err
	}
	if k.live() == nil {
		return conflict("container %s is not running", k.id)
	}
	if k.snapshot().State.Phase == restarting {
		return conflict("container %s is restarting, wait until the container is running", k.id)
	}
	resp, err := c.ctrd.Tasks.ListPids(r.Context(), &tasksapi.ListPidsRequest{ContainerID: k.id})
	if err != nil {
		return fmt.Errorf("list processes of %s: %w", k.id, err)
	}
	var pids []string
	for _, p := range resp.Processes {
		pids = append(pids, strconv.Itoa(int(p.Pid)))
	}
	top, err := ps(strings.Fields(args), pids)
	if err != nil {
		return err
	}
	c.publish(k, eventsapi.ActionTop, nil)
	return replyJSON(w, http.StatusOK, top)
}

// checkPsArgs refuses a custom column that is called PID and is not: the column
// is how the container's processes are told from the others.
func checkPsArgs(args string) error {
	for arg := range strings.FieldsSeq(args) {
		for col := range strings.SplitSeq(arg, ",") {
			if name, title, ok := strings.Cut(col, "="); ok && name != "pid" && strings.Contains(title, "PID") {
				return invalid("specifying \"%s\" is not allowed", col)
			}
		}
	}
	return nil
}

// ps runs the host's ps with args and keeps the lines of pids. With pids as
// arguments ps reads those alone; a format of the user may not allow it.
func ps(args, pids []string) (*container.TopResponse, error) {
	out, err := exec.Command("ps", append(slices.Clone(args), "-q", strings.Join(pids, ","))...).Output()
	if err != nil {
		out, err = exec.Command("ps", args...).Output()
	}
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) && len(exit.Stderr) > 0 {
			return nil, fmt.Errorf("ps: %s", bytes.TrimSpace(exit.Stderr))
		}
		return nil, fmt.Errorf("run ps: %w", err)
	}
	return parsePs(string(out), pids)
}

// parsePs reads a table whose last column may have spaces in it.
func parsePs(out string, pids []string) (*container.TopResponse, error) {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	titles := strings.Fields(lines[0])
	at := slices.Index(titles, "PID")
	if at < 0 {
		return nil, because(errdefs.ErrUnknown, "Couldn't find PID field in ps output")
	}
	top := &container.TopResponse{Titles: titles, Processes: [][]string{}}
	for _, line := range lines[1:] {
		fields := strings.Fields(line)
		if len(fields) <= at || !slices.Contains(pids, fields[at]) {
			continue
		}
		if last := len(titles) - 1; len(fields) > last {
			fields = append(fields[:last:last], strings.Join(fields[last:], " "))
		}
		top.Processes = append(top.Processes, fields)
	}
	return top, nil
}
