package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigurationComesFromFlagsFileAndDefaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gantryd.toml")
	if err := os.WriteFile(file, []byte("root = \"/data\"\nbridge = \"br7\"\nroles = [\"engine\"]\ninsecure-registries = [\"a:1\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		got  func(config) string
		want string
	}{
		{"defaults stand", nil, func(c config) string { return c.Root + " " + c.engineAddress() }, "/var/lib/gantry /run/gantry/engine.sock"},
		{"the file overrides defaults", []string{"--config", file}, func(c config) string { return c.Bridge + " " + c.Root }, "br7 /data"},
		{"a flag overrides the file", []string{"--config", file, "--bridge", "br8"}, func(c config) string { return c.Bridge }, "br8"},
		{"lists are separated by commas", []string{"--roles", "lifecycle,engine"}, func(c config) string { return strings.Join(c.Roles, "+") }, "lifecycle+engine"},
		{"lists come from the file", []string{"--config", file}, func(c config) string { return strings.Join(append(c.Roles, c.InsecureRegistries...), "+") }, "engine+a:1"},
		{"directories follow root and state", []string{"--root", "/r", "--state", "/s"}, func(c config) string {
			return strings.Join([]string{c.ContainerdAddress, c.ContainerdRoot, c.ContainerdState}, " ")
		}, "/s/containerd.sock /r/containerd /s/containerd"},
		{"lifecycle's directories can be set apart", []string{"--containerd-root", "/cr"}, func(c config) string { return c.ContainerdRoot }, "/cr"},
		{"the socket may be written as docker does", []string{"--host", "unix:///x.sock"}, func(c config) string { return c.engineAddress() }, "/x.sock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := parse(c.args)
			if err != nil {
				t.Fatal(err)
			}
			if got := c.got(cfg); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestBadConfigurationIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gantryd.toml")
	if err := os.WriteFile(file, []byte("rooot = \"/data\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"an unknown flag", []string{"--nosuch"}, "nosuch"},
		{"an unknown role", []string{"--roles", "engine,cook"}, `"cook"`},
		{"no role", []string{"--roles", ""}, "--roles is empty"},
		{"an argument", []string{"run"}, `"run"`},
		{"an unknown key", []string{"--config", file}, `"rooot"`},
		{"a missing file", []string{"--config", "/no/such/file"}, "/no/such/file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parse(c.args)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want one that says %s", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

func TestTwoDaemonsDoNotShareAStateDirectory(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lock(dir); err == nil || !strings.Contains(err.Error(), "another gantryd") {
		t.Errorf("second lock: %v", err)
	}
	unlock()
	again, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestAStaleSocketIsReplacedAndALiveOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.sock")
	if err := os.WriteFile(path, nil, 0o600); err != nil { // what a kill -9 leaves
		t.Fatal(err)
	}
	l, err := listen(path, 0o660)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := listen(path, 0o660); err == nil || !strings.Contains(err.Error(), "another daemon answers") {
		t.Errorf("second listen: %v", err)
	}
	if _, err := listen("/tmp/"+strings.Repeat("x", 120), 0o660); err == nil || !strings.Contains(err.Error(), "107 bytes") {
		t.Errorf("long path: %v", err)
	}
}
