package engine

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/moby/moby/api/types/container"
)

// postWait is POST /containers/{id}/wait. The answer begins at once, so that a
// client knows that it waits before it starts the container; its body comes at
// the end.
func (c *containers) postWait(w http.ResponseWriter, r *http.Request) error {
	k, err := c.find(r.PathValue("id"))
	if err != nil {
		return err
	}
	until := container.WaitCondition(r.FormValue("condition"))
	var await func(context.Context, *ctr) (int, error)
	switch until {
	case "", container.WaitConditionNotRunning:
		await = untilStopped
	case container.WaitConditionNextExit:
		await = k.nextExit()
	case container.WaitConditionRemoved:
		await = untilRemoved
	default:
		return invalid("invalid condition: %q", until)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	http.NewResponseController(w).Flush()
	code, err := await(r.Context(), k)
	if err != nil {
		return errStreamed // the client went away, or the engine ends
	}
	json.NewEncoder(w).Encode(container.WaitResponse{StatusCode: int64(code)})
	return nil
}

// untilStopped waits until k neither runs nor will by its policy.
func untilStopped(ctx context.Context, k *ctr) (int, error) {
	for {
		s, _, change := k.now()
		if s.Phase != running && s.Phase != restarting {
			return s.ExitCode, nil
		}
		if err := wait(ctx, change); err != nil {
			return 0, err
		}
	}
}

// nextExit looks at k now, and gives what waits for the exit of the task that
// runs, or of the next one.
func (k *ctr) nextExit() func(context.Context, *ctr) (int, error) {
	_, seen, _ := k.now()
	if seen != nil && !seen.over() {
		seen = nil // the one that runs counts
	}
	return func(ctx context.Context, k *ctr) (int, error) {
		for {
			s, r, change := k.now()
			if r != nil && r != seen {
				if err := wait(ctx, r.exited); err != nil {
					return 0, err
				}
				return r.code, nil
			}
			select {
			case <-change:
			case <-k.removed:
				return s.ExitCode, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
	}
}

func untilRemoved(ctx context.Context, k *ctr) (int, error) {
	if err := wait(ctx, k.removed); err != nil {
		return 0, err
	}
	s, _, _ := k.now()
	return s.ExitCode, nil
}
