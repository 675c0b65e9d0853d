package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/gantryd/gantry/engine"
)

// config is every setting of the daemon. A key of the TOML file is the name of
// the flag; a flag that is given wins over the file.
type config struct {
	Root               string   `toml:"root"`
	State              string   `toml:"state"`
	Roles              []string `toml:"roles"`
	ContainerdAddress  string   `toml:"containerd-address"`
	ContainerdRoot     string   `toml:"containerd-root"`
	ContainerdState    string   `toml:"containerd-state"`
	Host               string   `toml:"host"`
	DefaultRuntime     string   `toml:"default-runtime"`
	CgroupDriver       string   `toml:"cgroup-driver"`
	SELinux            bool     `toml:"selinux-enabled"`
	Bridge             string   `toml:"bridge"`
	BridgeSubnet       string   `toml:"bridge-subnet"`
	PublishAddress     string   `toml:"publish-address"`
	InsecureRegistries []string `toml:"insecure-registries"`
	RestartInterval    duration `toml:"restart-interval"`
	Debug              bool     `toml:"debug"`

	showVersion bool
}

// errHelp says that the user asked for help and has it.
var errHelp = errors.New("help was shown")

// known are the roles that this daemon can play.
var known = []string{"engine", "lifecycle"}

// duration is a flag such as 10s, in the file a string.
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v <= 0 {
		err = fmt.Errorf("want more than nothing, such as 10s")
	}
	*d = duration(v)
	return err
}

// list is a flag whose value is separated by commas.
type list []string

func (l *list) String() string { return strings.Join(*l, ",") }

func (l *list) Set(s string) error {
	*l = strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
	return nil
}

// parse reads the flags and the file that --config names, and fills in what
// follows from them.
func parse(args []string) (config, error) {
	cfg := config{
		Root:           "/var/lib/gantry",
		State:          "/run/gantry",
		Roles:          slices.Clone(known),
		DefaultRuntime: "io.containerd.gantry.v2",
		CgroupDriver:   engine.Cgroupfs,
		Bridge:         "gantry0",
		BridgeSubnet:   "172.17.0.0/16",
		PublishAddress: "0.0.0.0",

		RestartInterval: duration(10 * time.Second),
	}
	var file string
	flags := cfg.flags(&file)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return cfg, usage(os.Stdout, flags)
		}
		return cfg, fmt.Errorf("%w; see 'gantryd --help'", err)
	}
	if file != "" {
		if err := cfg.load(file); err != nil {
			return cfg, err
		}
		if err := flags.Parse(args); err != nil { // flags win over the file
			return cfg, err
		}
	}
	if flags.NArg() > 0 {
		return cfg, fmt.Errorf("unexpected argument %q; gantryd takes flags only", flags.Arg(0))
	}
	return cfg, cfg.complete()
}

func (c *config) flags(file *string) *flag.FlagSet {
	f := flag.NewFlagSet("gantryd", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(file, "config", "", "TOML `file` with the same keys as these flags")
	f.StringVar(&c.Root, "root", c.Root, "`directory` of data that outlives a boot")
	f.StringVar(&c.State, "state", c.State, "`directory` of sockets and of what a boot forgets")
	f.Var((*list)(&c.Roles), "roles", "what runs in this process, `list` of "+strings.Join(known, ","))
	f.StringVar(&c.ContainerdAddress, "containerd-address", c.ContainerdAddress, "unix `socket` where lifecycle listens, or of the containerd to use (default STATE/containerd.sock)")
	f.StringVar(&c.ContainerdRoot, "containerd-root", c.ContainerdRoot, "lifecycle's data `directory` (default ROOT/containerd)")
	f.StringVar(&c.ContainerdState, "containerd-state", c.ContainerdState, "lifecycle's state `directory` (default STATE/containerd)")
	f.StringVar(&c.Host, "host", c.Host, "unix `socket` of the Docker Engine API (default STATE/engine.sock)")
	f.StringVar(&c.DefaultRuntime, "default-runtime", c.DefaultRuntime, "containerd runtime `name` for containers that ask for none")
	f.StringVar(&c.CgroupDriver, "cgroup-driver", c.CgroupDriver, "`driver` that makes containers' cgroups: cgroupfs or systemd")
	f.BoolVar(&c.SELinux, "selinux-enabled", false, "give containers SELinux labels")
	f.StringVar(&c.Bridge, "bridge", c.Bridge, "`name` of the default bridge device")
	f.StringVar(&c.BridgeSubnet, "bridge-subnet", c.BridgeSubnet, "IPv4 `prefix` of the default bridge")
	f.StringVar(&c.PublishAddress, "publish-address", c.PublishAddress, "host `address` of published ports that name none")
	f.Var((*list)(&c.InsecureRegistries), "insecure-registries", "`list` of registry hosts that may be spoken to over plain HTTP")
	f.TextVar(&c.RestartInterval, "restart-interval", c.RestartInterval, "`time` between two looks of lifecycle at the containers that have containerd.io/restart labels")
	f.BoolVar(&c.Debug, "debug", c.Debug, "log more")
	f.BoolVar(&c.showVersion, "version", false, "print the version and exit")
	return f
}

func (c *config) load(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	dec := toml.NewDecoder(f).DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		var strict *toml.StrictMissingError
		if errors.As(err, &strict) && len(strict.Errors) > 0 {
			return fmt.Errorf("read configuration %s: unknown key %q; the keys are the flags of 'gantryd --help'",
				file, strings.Join(strict.Errors[0].Key(), "."))
		}
		return fmt.Errorf("read configuration %s: %w", file, err)
	}
	return nil
}

// complete checks what was given and derives what was not.
func (c *config) complete() error {
	for _, r := range c.Roles {
		if !slices.Contains(known, r) {
			return fmt.Errorf("unknown role %q; the roles are %s", r, strings.Join(known, ", "))
		}
	}
	if len(c.Roles) == 0 {
		return fmt.Errorf("--roles is empty; the roles are %s", strings.Join(known, ", "))
	}
	for _, p := range []*string{&c.Root, &c.State} {
		abs, err := filepath.Abs(*p)
		if err != nil {
			return err
		}
		*p = abs
	}
	derive := func(p *string, value string) {
		if *p == "" {
			*p = value
		}
	}
	derive(&c.ContainerdAddress, filepath.Join(c.State, "containerd.sock"))
	derive(&c.ContainerdRoot, filepath.Join(c.Root, "containerd"))
	derive(&c.ContainerdState, filepath.Join(c.State, "containerd"))
	return nil
}

func (c *config) plays(role string) bool { return slices.Contains(c.Roles, role) }

func (c *config) engineAddress() string {
	if c.Host != "" {
		return strings.TrimPrefix(c.Host, "unix://")
	}
	return filepath.Join(c.State, "engine.sock")
}

func (c *config) level() slog.Level {
	if c.Debug {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}

func usage(w io.Writer, f *flag.FlagSet) error {
	fmt.Fprint(w, "Usage: gantryd [flags]\n\nThe container daemon: Docker Engine API and containerd API.\n\nFlags:\n")
	f.VisitAll(func(fl *flag.Flag) {
		name, text := flag.UnquoteUsage(fl)
		if name != "" {
			name = " " + strings.ToUpper(name)
		}
		if fl.DefValue != "" && fl.DefValue != "false" {
			text += " (default " + fl.DefValue + ")"
		}
		fmt.Fprintf(w, "  --%-34s %s\n", fl.Name+name, text)
	})
	return errHelp
}
