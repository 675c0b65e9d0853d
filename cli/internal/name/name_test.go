package name

import (
	"strings"
	"testing"

	// Which digests reference knows depends on what else is linked.
	_ "crypto/sha512"

	"github.com/distribution/reference"
)

// The package takes, refuses and says what github.com/distribution/reference does.
func FuzzAsReference(f *testing.F) {
	sum := "@sha256:" + strings.Repeat("a1", 32)
	for _, s := range []string{
		"", "busybox", "busybox:1", "busybox:", ":1", "user/app:1.2", "library/busybox", "docker.io/busybox", "index.docker.io/a/b",
		"docker.io/library/a/b", "localhost/x", "localhost:5000/x:y", "reg.example/a/b/c:tag", "reg.example:5000/a" + sum, "a:b" + sum, "a" + sum,
		"A", "User/app", "Reg/app", "REG.example/App", "a b", "a/ b", "a//b", "/a", "a/", "-a", "a-", "a--b", "a___b", "a__b", "a_b", "a..b", "a.b",
		"a._b", "a:-x", "a:.x", "a:_x", "a:" + strings.Repeat("x", 128), "a:" + strings.Repeat("x", 129), strings.Repeat("a", 255),
		strings.Repeat("a", 256), strings.Repeat("ab", 32), "[::1]:5000/a", "[::1]/a", "[::g]/a", "[]/a", "reg-.x/a", "-reg.x/a", "reg..x/a", "a.b:x/y",
		"a@sha256:abc", "a@sha256:" + strings.Repeat("A1", 32), "a@md5:" + strings.Repeat("a1", 16), "a@x+y:" + strings.Repeat("a1", 16),
		"a@:" + strings.Repeat("a1", 16), "a@sha256:" + strings.Repeat("a1", 33), "a@", "a@b@c", "a:b:c", "ä", "a/ä:1", "sha256:" + strings.Repeat("a1", 32),
		"sha256:abc", "sha384:" + strings.Repeat("a1", 48), "x..y/a", "1.2.3.4:80/a", "a:1/b", "docker.io", "docker.io/", "a@sha256:" + strings.Repeat("g1", 32),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, wantErr := reference.ParseNormalizedNamed(s)
		got, err := Parse(s)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: error %v, want %v", s, err, wantErr)
		}
		if err != nil {
			kind, _, _ := strings.Cut(err.Error(), ":") // after it stands what reference took for the name
			if !strings.HasPrefix(wantErr.Error(), kind) && !strings.Contains(kind, "digest") {
				t.Errorf("%q: error %q, want %q", s, err, wantErr)
			}
			return
		}
		if got.String() != want.String() || got.Familiar() != reference.FamiliarString(want) || got.Repository() != want.Name() ||
			got.FamiliarRepository() != reference.FamiliarName(want) || got.Tagged().String() != reference.TagNameOnly(want).String() ||
			got.Bare() != reference.IsNameOnly(want) {
			t.Errorf("%q: %+v, want %v", s, got, want)
		}
		ref, err := reference.ParseAnyReference(s)
		_, named := ref.(reference.Named)
		if isID := err == nil && !named; IsID(s) != isID {
			t.Errorf("%q is an ID: %v, want %v", s, IsID(s), isID)
		}
	})
}
