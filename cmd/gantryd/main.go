// Gantryd is the daemon: the engine (Docker Engine API) and lifecycle (containerd
// API), in one process or each alone. Everything is plugged together here, by hand.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/gantryd/gantry/engine"
	"github.com/gantryd/gantry/internal/slack"
	"github.com/gantryd/gantry/internal/version"
	"github.com/gantryd/gantry/lifecycle"
)

func main() {
	cfg, err := parse(os.Args[1:])
	switch {
	case errors.Is(err, errHelp):
		return
	case err != nil:
		fmt.Fprintf(os.Stderr, "gantryd: %v\n", err)
		os.Exit(2)
	case cfg.showVersion:
		fmt.Printf("gantryd version %s, commit %s\n", version.Version, version.Commit)
		return
	}
	if err := slack.Monitor(monitorSlack); err != nil {
		fmt.Fprintf(os.Stderr, "gantryd: the runtime's monitor polls as it does: %v\n", err)
	}
	if err := keepDescriptors(); err != nil {
		fmt.Fprintf(os.Stderr, "gantryd: %v\n", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, cfg); err != nil {
		fmt.Fprintf(os.Stderr, "gantryd: %v\n", err)
		os.Exit(1)
	}
}

// monitorSlack is short beside what a client waits for.
const monitorSlack = 2 * time.Millisecond

// run plays the chosen roles until ctx ends. Containers run on when it returns.
func run(ctx context.Context, cfg config) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: cfg.level()}))
	if err := checkHost(); err != nil {
		return err
	}
	for _, dir := range []string{cfg.Root, cfg.State} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("make directory %s: %w", dir, err)
		}
	}
	unlock, err := lock(cfg.State)
	if err != nil {
		return err
	}
	defer unlock()

	shim, err := shimBinary()
	if err != nil {
		return err
	}
	roles, ctx := errgroup.WithContext(ctx)
	roles.Go(func() error { rest(ctx); return nil })
	// Lifecycle ends after engine, which has it take apart what has just ended.
	below, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var containerd grpc.ClientConnInterface // nil: engine dials the socket
	if cfg.plays("lifecycle") {
		l, err := startLifecycle(below, roles, cfg, log)
		if err != nil {
			return err
		}
		containerd = l.Conn()
	}
	if !cfg.plays("engine") {
		context.AfterFunc(ctx, end)
	} else if err := startEngine(ctx, roles, cfg, containerd, shim, end, log); err != nil {
		end()
		return errors.Join(err, stopped(roles))
	}
	notify("READY=1")
	log.Info("gantryd is ready", "roles", cfg.Roles, "state", cfg.State, "version", version.Version)
	return roles.Wait()
}

// stopped ends the roles that were started before a later one failed.
func stopped(roles *errgroup.Group) error {
	roles.Go(func() error { return context.Canceled })
	if err := roles.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func startLifecycle(ctx context.Context, roles *errgroup.Group, cfg config, log *slog.Logger) (*lifecycle.Lifecycle, error) {
	l, err := lifecycle.New(ctx, lifecycle.Config{
		Root:               cfg.ContainerdRoot,
		State:              cfg.ContainerdState,
		Address:            cfg.ContainerdAddress,
		ShimDirs:           []string{ownDir()},
		InsecureRegistries: cfg.InsecureRegistries,
		RestartInterval:    time.Duration(cfg.RestartInterval),
		Debug:              cfg.Debug,
		Log:                log.With("role", "lifecycle"),
	})
	if err != nil {
		return nil, fmt.Errorf("start lifecycle: %w", err)
	}
	api, err := listen(cfg.ContainerdAddress, 0o660)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	shims, err := listen(cfg.ContainerdAddress+".ttrpc", 0o660)
	if err != nil {
		return nil, errors.Join(err, api.Close(), l.Close())
	}
	roles.Go(func() error {
		return errors.Join(l.Serve(ctx, api, shims), l.Close())
	})
	return l, nil
}

func startEngine(ctx context.Context, roles *errgroup.Group, cfg config, containerd grpc.ClientConnInterface, shim string, ended func(), log *slog.Logger) error {
	l, err := listen(cfg.engineAddress(), 0o660)
	if err != nil {
		return err
	}
	e, err := engine.New(ctx, engine.Config{
		Root:               cfg.Root,
		State:              cfg.State,
		ContainerdAddress:  cfg.ContainerdAddress,
		Containerd:         containerd,
		Namespace:          "moby",
		Snapshotter:        "overlayfs",
		Runtime:            cfg.DefaultRuntime,
		CgroupDriver:       cfg.CgroupDriver,
		SELinux:            cfg.SELinux,
		ShimBinary:         shim,
		Bridge:             cfg.Bridge,
		BridgeSubnet:       cfg.BridgeSubnet,
		PublishAddress:     cfg.PublishAddress,
		InsecureRegistries: cfg.InsecureRegistries,
		Debug:              cfg.Debug,
		Log:                log.With("role", "engine"),
	})
	if err != nil {
		return errors.Join(fmt.Errorf("start engine: %w", err), l.Close())
	}
	roles.Go(func() error {
		defer ended()
		return errors.Join(e.Serve(ctx, l), e.Close())
	})
	return nil
}
