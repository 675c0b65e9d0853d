// Package name reads the names of images as Docker's tools write them:
// busybox, user/app:1.2, registry.example:5000/a/b@sha256:….
//
// The grammar is that of the distribution specification and of
// github.com/distribution/reference, which the test holds this package to. It is
// not linked because its regular expressions take a fifth of the time in which
// `gantry version` is done.
package name

import (
	"errors"
	"fmt"
	"strings"
)

// Docker Hub, and the part of it for images without a user.
const (
	hub        = "docker.io"
	hubLegacy  = "index.docker.io"
	hubLibrary = "library/"
)

// maxPath is the longest repository.
const maxPath = 255

var errFormat = errors.New("invalid reference format")

// Name is an image's name in full.
type Name struct {
	Domain string // "docker.io" where none was given
	Path   string // "library/busybox"
	Tag    string // may be empty
	Digest string // may be empty
}

// Parse reads a name; "busybox" is docker.io/library/busybox.
func Parse(s string) (Name, error) {
	if isHex64(s) {
		return Name{}, fmt.Errorf("invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	domain, rest := splitDomain(s)
	n := Name{Domain: domain}
	rest, digest, hasDigest := strings.Cut(rest, "@")
	path, tag, hasTag := strings.Cut(rest, ":")
	if strings.ToLower(path) != path {
		return Name{}, fmt.Errorf("%w: repository name (%s) must be lowercase", errFormat, path)
	}
	switch {
	case !validDomain(domain), !validPath(path):
		return Name{}, errFormat
	case hasTag && !validTag(tag):
		return Name{}, errFormat
	case hasDigest && !looksLikeDigest(digest):
		return Name{}, errFormat
	case len(path) > maxPath:
		return Name{}, fmt.Errorf("repository name must not be more than %d characters", maxPath)
	}
	if hasDigest {
		if err := checkDigest(digest); err != nil {
			return Name{}, err
		}
	}
	n.Path, n.Tag, n.Digest = path, tag, digest
	return n, nil
}

// IsID reports whether s is an image's ID in full, or a digest, and no name.
func IsID(s string) bool {
	return isHex64(s) || looksLikeDigest(s) && checkDigest(s) == nil
}

// splitDomain tells a registry from the first part of a path: a registry has a
// dot, a port or an upper case letter in it, or is localhost.
func splitDomain(s string) (domain, rest string) {
	first, rest, ok := strings.Cut(s, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first {
		domain, rest = hub, s
	} else {
		domain = first
	}
	if domain == hubLegacy {
		domain = hub
	}
	if domain == hub && !strings.Contains(rest, "/") {
		rest = hubLibrary + rest
	}
	return domain, rest
}

// Repository is the name without tag and digest.
func (n Name) Repository() string { return n.Domain + "/" + n.Path }

// String is the name in full.
func (n Name) String() string { return n.Repository() + n.suffix() }

// Familiar is the name as people write it.
func (n Name) Familiar() string {
	return n.FamiliarRepository() + n.suffix()
}

// FamiliarRepository is the repository as people write it.
func (n Name) FamiliarRepository() string {
	if n.Domain != hub {
		return n.Repository()
	}
	if short, ok := strings.CutPrefix(n.Path, hubLibrary); ok && !strings.Contains(short, "/") {
		return short
	}
	return n.Path
}

func (n Name) suffix() string {
	s := ""
	if n.Tag != "" {
		s = ":" + n.Tag
	}
	if n.Digest != "" {
		s += "@" + n.Digest
	}
	return s
}

// Bare reports whether there is neither tag nor digest.
func (n Name) Bare() bool { return n.Tag == "" && n.Digest == "" }

// Tagged is the name with the usual tag where it has none.
func (n Name) Tagged() Name {
	if n.Bare() {
		n.Tag = "latest"
	}
	return n
}

func validDomain(s string) bool {
	host, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 2 || strings.Trim(s[1:end], "0123456789abcdefABCDEF:") != "" {
			return false
		}
		if port = s[end+1:]; port == "" {
			return true
		}
		return port[0] == ':' && isDigits(port[1:])
	}
	host, port, hasPort := strings.Cut(s, ":")
	if hasPort && !isDigits(port) {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || !all(label, func(c byte) bool { return isAlnum(c) || c == '-' }) {
			return false
		}
	}
	return true
}

// validPath: components of small letters and digits with single separators: one
// dot, one or two underscores, or any number of dashes.
func validPath(s string) bool {
	for part := range strings.SplitSeq(s, "/") {
		if part == "" || !isLower(part[0]) || !isLower(part[len(part)-1]) {
			return false
		}
		for i := 0; i < len(part); {
			if isLower(part[i]) {
				i++
				continue
			}
			end := i
			for end < len(part) && !isLower(part[end]) {
				end++
			}
			switch sep := part[i:end]; {
			case sep == ".", sep == "_", sep == "__", strings.Trim(sep, "-") == "":
			default:
				return false
			}
			i = end
		}
	}
	return true
}

func validTag(s string) bool {
	if s == "" || len(s) > 128 || s[0] == '.' || s[0] == '-' {
		return false
	}
	return all(s, func(c byte) bool { return isAlnum(c) || c == '_' || c == '.' || c == '-' })
}

// looksLikeDigest: ALGORITHM:HEX of at least 32 digits.
func looksLikeDigest(s string) bool {
	algorithm, hex, ok := strings.Cut(s, ":")
	if !ok || len(hex) < 32 || !all(hex, isHex) {
		return false
	}
	for part := range strings.FieldsFuncSeq(algorithm, func(r rune) bool { return strings.ContainsRune("-_+.", r) }) {
		if !all(part, isAlnum) || part[0] >= '0' && part[0] <= '9' {
			return false
		}
	}
	return algorithm != "" && isAlnum(algorithm[0]) && isAlnum(algorithm[len(algorithm)-1])
}

func checkDigest(s string) error {
	algorithm, hex, _ := strings.Cut(s, ":")
	size, ok := map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}[algorithm]
	switch {
	case !ok:
		return errors.New("unsupported digest algorithm")
	case len(hex) != size:
		return errors.New("invalid checksum digest length")
	case strings.ToLower(hex) != hex:
		return errors.New("invalid checksum digest format")
	}
	return nil
}

func isHex64(s string) bool {
	return len(s) == 64 && all(s, isHex) && strings.ToLower(s) == s
}

func all(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}

func isDigits(s string) bool {
	return s != "" && all(s, func(c byte) bool { return c >= '0' && c <= '9' })
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func isAlnum(c byte) bool { return isLower(c) || c >= 'A' && c <= 'Z' }

func isHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F' }
