package option

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// CheckEnv reads one -e: NAME=VALUE, or NAME for the value in our own environment.
func CheckEnv(s string) (string, error) {
	name, _, has := strings.Cut(s, "=")
	if name == "" {
		return "", fmt.Errorf("invalid environment variable: %s", s)
	}
	if has {
		return s, nil
	}
	if v, ok := os.LookupEnv(name); ok {
		return name + "=" + v, nil
	}
	return name, nil // the engine takes the image's variable away
}

// CheckLabel reads one label: NAME or NAME=VALUE.
func CheckLabel(s string) (string, error) {
	name, _, _ := strings.Cut(s, "=")
	if strings.TrimLeft(name, " \t") == "" {
		return "", fmt.Errorf("invalid label '%s': empty name", s)
	}
	if strings.ContainsFunc(name, unicode.IsSpace) {
		return "", fmt.Errorf("label '%s' contains whitespaces", name)
	}
	return s, nil
}

// KeyFiles reads files of NAME=VALUE lines; a NAME alone is asked of lookup, and
// left out where that does not know it. What the command line says comes after.
func KeyFiles(files, given []string, lookup func(string) (string, bool)) ([]string, error) {
	var all []string
	for _, name := range files {
		lines, err := keyFile(name, lookup)
		if err != nil {
			return nil, err
		}
		all = append(all, lines...)
	}
	return append(all, given...), nil
}

func keyFile(name string, lookup func(string) (string, bool)) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var lines []string
	scan := bufio.NewScanner(f)
	for n := 1; scan.Scan(); n++ {
		if !utf8.Valid(scan.Bytes()) {
			return nil, fmt.Errorf("invalid env file (%s): invalid utf8 bytes at line %d: %v", name, n, scan.Bytes())
		}
		line := scan.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, has := strings.Cut(line, "=")
		if key == "" {
			return nil, fmt.Errorf("invalid env file (%s): no variable name on line '%s'", name, line)
		}
		if strings.ContainsFunc(key, unicode.IsSpace) {
			return nil, fmt.Errorf("invalid env file (%s): variable '%s' contains whitespaces", name, key)
		}
		if !has && lookup != nil {
			value, has = lookup(key)
		}
		if !has {
			continue
		}
		lines = append(lines, key+"="+value)
	}
	if err := scan.Err(); err != nil {
		if errors.Is(err, bufio.ErrTooLong) {
			return nil, fmt.Errorf("invalid env file (%s): a line is longer than %d bytes", name, bufio.MaxScanTokenSize)
		}
		return nil, err
	}
	return lines, nil
}

// Pairs is a list of NAME=VALUE as a map; a NAME alone has an empty value.
func Pairs(list []string) map[string]string {
	m := make(map[string]string, len(list))
	for _, s := range list {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}
