package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"

	"github.com/gantryd/gantry/cli/internal/option"
)

func updateCommand(c *cli) *cobra.Command {
	var u container.UpdateConfig
	var pids int64
	var restart string
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] CONTAINER [CONTAINER...]",
		Short: "Update configuration of one or more containers",
		Args:  minArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().NFlag() == 0 {
				return errors.New("you must provide one or more flags when using this command")
			}
			var err error
			if u.RestartPolicy, err = option.ParseRestart(restart); err != nil {
				return err
			}
			if cmd.Flags().Changed("pids-limit") {
				u.PidsLimit = &pids
			}
			return c.update(cmd.Context(), args, u)
		},
	}
	f := cmd.Flags()
	f.Var(option.NewUint16(&u.BlkioWeight), "blkio-weight", "Block IO (relative weight), between 10 and 1000,\nor 0 to disable (default 0)")
	f.Int64Var(&u.CPUPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	f.Int64Var(&u.CPUQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	f.Int64Var(&u.CPURealtimePeriod, "cpu-rt-period", 0, "Limit the CPU real-time period in microseconds")
	f.Int64Var(&u.CPURealtimeRuntime, "cpu-rt-runtime", 0, "Limit the CPU real-time runtime in microseconds")
	f.Int64VarP(&u.CPUShares, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	f.Var(option.NewCPUs(&u.NanoCPUs), "cpus", "Number of CPUs")
	f.StringVar(&u.CpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	f.StringVar(&u.CpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	f.VarP(option.NewBytes(&u.Memory, false), "memory", "m", "Memory limit")
	f.Var(option.NewBytes(&u.MemoryReservation, false), "memory-reservation", "Memory soft limit")
	f.Var(option.NewBytes(&u.MemorySwap, true), "memory-swap", "Swap limit equal to memory plus swap: -1 to enable\nunlimited swap")
	f.Int64Var(&pids, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	f.StringVar(&restart, "restart", "", "Restart policy to apply when a container exits")
	aliases(cmd, "container update", "update")
	return cmd
}

func (c *cli) update(ctx context.Context, names []string, u container.UpdateConfig) error {
	cl, err := c.engine()
	if err != nil {
		return err
	}
	var errs []error
	var warnings []string
	for _, name := range names {
		var resp container.UpdateResponse
		if err := cl.Post(ctx, "/containers/"+url.PathEscape(name)+"/update", nil, u, &resp); err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintln(c.std.Out, name)
		warnings = append(warnings, resp.Warnings...)
	}
	for _, w := range warnings {
		fmt.Fprintln(c.std.Out, w)
	}
	return errors.Join(errs...)
}
