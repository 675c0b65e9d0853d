// Demo is 'make demo': it starts a private gantryd in a directory and a network
// namespace of its own, runs a container from an image that it builds from one
// static program, prints the journey of the run, and leaves nothing behind.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/gantryd/gantry/test/rig"
)

func main() {
	bin := flag.String("bin", "bin", "directory of the built programs")
	flag.Parse()
	if err := demo(*bin); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func demo(bin string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("containers need root here; try 'sudo make demo'")
	}
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "gantry-demo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	archive := filepath.Join(dir, "hello.tar")
	if err := image(dir, archive); err != nil {
		return fmt.Errorf("make the image: %w", err)
	}
	stop, err := daemon(bin, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	socket := filepath.Join(dir, "s/engine.sock")
	gantry := func(args ...string) error {
		fmt.Printf("\n$ gantry")
		for _, a := range args {
			fmt.Printf(" %s", a)
		}
		fmt.Println()
		cmd := exec.Command(filepath.Join(bin, "gantry"), append([]string{"-H", "unix://" + socket}, args...)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("gantry %s: %w", args[0], err)
		}
		return nil
	}
	return errors.Join(
		gantry("load", "-q", "-i", archive),
		gantry("run", "--rm", "--explain", "hello"),
	)
}

// image builds the hello program and packs it as an OCI archive.
func image(dir, archive string) error {
	program := filepath.Join(dir, "hello")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./test/demo/hello")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	layout := filepath.Join(dir, "layout")
	l, err := rig.NewLayout(layout)
	if err != nil {
		return err
	}
	if err := l.Layer(rig.Tar([]rig.File{{Name: "hello", Mode: 0o755, Data: data}})); err != nil {
		return err
	}
	if err := l.Finish("hello:latest", ocispec.ImageConfig{Entrypoint: []string{"/hello"}}); err != nil {
		return err
	}
	out, err := os.Create(archive)
	if err != nil {
		return err
	}
	return errors.Join(rig.Archive(out, layout), out.Close())
}

// daemon starts gantryd with a network and mounts of its own, so that the machine
// sees no bridge, rule or mount of it, and waits until it answers.
func daemon(bin, dir string) (stop func() error, err error) {
	log, err := os.Create(filepath.Join(dir, "gantryd.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "gantryd"), "--root", filepath.Join(dir, "r"), "--state", filepath.Join(dir, "s"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start gantryd: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return err
		}
		return <-ended
	}
	for range 500 {
		select {
		case <-ended:
			said, _ := os.ReadFile(log.Name())
			return nil, fmt.Errorf("gantryd does not start: %s", said)
		case <-time.After(10 * time.Millisecond):
		}
		if c, err := net.Dial("unix", filepath.Join(dir, "s/engine.sock")); err == nil {
			return stop, c.Close()
		}
	}
	return nil, errors.Join(errors.New("gantryd does not answer within 5 seconds"), stop())
}
