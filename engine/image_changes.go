package engine

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	dockernet "github.com/moby/moby/api/types/network"

	"github.com/gantryd/gantry/bundle"
)

// imageChanges applies the Dockerfile instructions that change a config and
// nothing else, as commit and import take them.
func imageChanges(cfg dockerspec.DockerOCIImageConfig, changes []string) (dockerspec.DockerOCIImageConfig, error) {
	cfg.Env = slices.Clone(cfg.Env)
	cfg.Labels = maps.Clone(cfg.Labels)
	cfg.Volumes = maps.Clone(cfg.Volumes)
	cfg.ExposedPorts = maps.Clone(cfg.ExposedPorts)
	for _, change := range changes {
		for line := range strings.Lines(strings.ReplaceAll(change, "\\\n", " ")) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			if err := applyChange(&cfg, line); err != nil {
				return cfg, err
			}
		}
	}
	return cfg, nil
}

func applyChange(cfg *dockerspec.DockerOCIImageConfig, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	word = strings.ToUpper(word)
	if rest == "" {
		return invalid("%s requires at least one argument", word)
	}
	switch word {
	case "CMD":
		cfg.Cmd = command(rest, cfg.Shell)
	case "ENTRYPOINT":
		cfg.Entrypoint = command(rest, cfg.Shell)
	case "ENV":
		return eachPair(word, rest, func(k, v string) { cfg.Env = bundle.Env(cfg.Env, []string{k + "=" + v}) })
	case "LABEL":
		return eachPair(word, rest, func(k, v string) { set(&cfg.Labels, k, v) })
	case "EXPOSE":
		for _, f := range strings.Fields(rest) {
			ports, err := dockernet.ParsePortRange(f)
			if err != nil {
				return invalid("invalid containerPort: %s", f)
			}
			for n := int(ports.Start()); n <= int(ports.End()); n++ {
				set(&cfg.ExposedPorts, strconv.Itoa(n)+"/"+string(ports.Proto()), struct{}{})
			}
		}
	case "VOLUME":
		for _, v := range words(rest) {
			set(&cfg.Volumes, v, struct{}{})
		}
	case "USER":
		cfg.User = rest
	case "WORKDIR":
		cfg.WorkingDir = rest
	case "STOPSIGNAL":
		cfg.StopSignal = rest
	case "ONBUILD":
		cfg.OnBuild = append(slices.Clone(cfg.OnBuild), rest)
	case "HEALTHCHECK":
		return healthcheck(cfg, rest)
	default:
		return invalid("%s is not a valid change command", strings.ToLower(word))
	}
	return nil
}

func set[V any](m *map[string]V, key string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = v
}

// command is JSON's list, or a line for the shell.
func command(s string, shell []string) []string {
	var list []string
	if json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), s)
}

// words is JSON's list, or words between spaces.
func words(s string) []string {
	var list []string
	if json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	return strings.Fields(s)
}

// eachPair reads KEY=VALUE …, or the old form KEY VALUE.
func eachPair(word, s string, each func(k, v string)) error {
	parts := unquote(s)
	if !strings.Contains(parts[0], "=") {
		k, v, ok := strings.Cut(s, " ")
		if !ok {
			return invalid("%s must have two arguments", word)
		}
		each(k, strings.TrimSpace(v))
		return nil
	}
	for _, p := range parts {
		k, v, ok := strings.Cut(p, "=")
		if !ok || k == "" {
			return invalid("Syntax error - can't find = in %q. Must be of the form: name=value", p)
		}
		each(k, v)
	}
	return nil
}

// unquote splits at spaces that are neither quoted nor behind a backslash, and
// takes quotes and backslashes away.
func unquote(s string) []string {
	var parts []string
	var word strings.Builder
	var quote rune
	escaped, any := false, false
	for _, c := range s {
		switch {
		case escaped:
			word.WriteRune(c)
			escaped = false
		case c == '\\' && quote != '\'':
			escaped, any = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, any = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if any {
				parts = append(parts, word.String())
				word.Reset()
				any = false
			}
		default:
			word.WriteRune(c)
			any = true
		}
	}
	if any {
		parts = append(parts, word.String())
	}
	return parts
}

// healthcheck reads "NONE" or "[--interval=… …] CMD COMMAND".
func healthcheck(cfg *dockerspec.DockerOCIImageConfig, s string) error {
	h := &dockerspec.HealthcheckConfig{}
	for strings.HasPrefix(s, "--") {
		flag, rest, _ := strings.Cut(s, " ")
		s = strings.TrimSpace(rest)
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		durations := map[string]*time.Duration{
			"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval,
		}
		var err error
		if d := durations[name]; d != nil {
			*d, err = time.ParseDuration(value)
		} else if name == "retries" {
			h.Retries, err = strconv.Atoi(value)
		} else {
			return invalid("Unknown flag: %s", name)
		}
		if err != nil {
			return invalid("HEALTHCHECK --%s: %w", name, err)
		}
	}
	kind, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		h.Test = []string{"NONE"}
	case "CMD":
		var list []string
		if rest == "" {
			return invalid("Missing command after HEALTHCHECK CMD")
		}
		if json.Unmarshal([]byte(rest), &list) == nil {
			h.Test = append([]string{"CMD"}, list...)
		} else {
			h.Test = []string{"CMD-SHELL", rest}
		}
	default:
		return invalid("Unknown type %q in HEALTHCHECK (try CMD)", kind)
	}
	cfg.Healthcheck = h
	return nil
}
