package shim

import (
	"log/slog"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/shim/internal/taskapi"
)

// watchAfter keeps the watch for OOM out of the way of a start; what happens
// before it is found by what the cgroup has counted.
const watchAfter = 20 * time.Millisecond

// watchOOM has TaskOOM published whenever the kernel kills in the container for
// want of memory.
func (c *container) watchOOM() {
	c.shim.gate.Enter()
	defer c.shim.gate.Leave()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cgroups == nil || c.ended || c.oomWatch != nil {
		return
	}
	watch, err := c.cgroups.WatchOOM(c.shim.gate, c.tellOOM)
	if err != nil {
		slog.Warn("OOM is not watched for", "id", c.id, "err", err)
		return
	}
	c.oomWatch = watch
}

func (c *container) tellOOM() {
	c.ooms.Add(1)
	c.shim.events.publish(&taskapi.TaskOOM{ContainerID: c.id})
}

// unwatchOOM ends the watch of a container that has ended. A kill that was too
// early or too late for the watch is told now, before the exit.
func (c *container) unwatchOOM(e exit) {
	c.mu.Lock()
	c.ended = true
	watch := c.oomWatch
	c.oomWatch = nil
	c.mu.Unlock()
	if watch != nil {
		watch.Stop()
	}
	if e.status == 128+uint32(unix.SIGKILL) && c.ooms.Load() == 0 && c.cgroups != nil && c.cgroups.OOMs() > 0 {
		c.tellOOM()
	}
}
