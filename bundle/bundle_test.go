package bundle

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestCommandFollowsDocker(t *testing.T) {
	image := ocispec.ImageConfig{Entrypoint: []string{"/entry"}, Cmd: []string{"default"}}
	for _, c := range []struct {
		name            string
		entrypoint, cmd []string
		want            string
	}{
		{"nothing asked is the image's", nil, nil, "/entry default"},
		{"a command replaces the image's command", nil, []string{"x", "y"}, "/entry x y"},
		{"an entrypoint takes the image's command away", []string{"/e"}, nil, "/e"},
		{"both", []string{"/e"}, []string{"x"}, "/e x"},
		{"an empty entrypoint leaves the command alone", []string{""}, []string{"x"}, "x"},
		{"an empty entrypoint and no command is nothing to run", []string{""}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			entrypoint, cmd, err := Command(image, c.entrypoint, c.cmd)
			if got := strings.Join(append(slices.Clone(entrypoint), cmd...), " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if (c.want == "") != errdefs.IsInvalidArgument(err) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestEnvLaysLaterOverEarlier(t *testing.T) {
	got := Env([]string{"PATH=/bin", "A=1"}, []string{"B=2", "A=3", "PATH"}, []string{"EMPTY="})
	if want := []string{"A=3", "B=2", "EMPTY="}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestUsersAreLookedUpInTheImage(t *testing.T) {
	root := Root{layer(t, tree{
		"etc/passwd": "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
		"etc/group":  "root:x:0:\napp:x:1001:\nwheel:x:10:app,root\n",
	})}
	for _, c := range []struct {
		name, user string
		groups     []string
		uid, gid   uint32
		more       []uint32
		err        string
	}{
		{name: "nobody asked is root", uid: 0, gid: 0, more: []uint32{0, 10}},
		{name: "a name", user: "app", uid: 1000, gid: 1001, more: []uint32{1001, 10}},
		{name: "a number that has a name", user: "1000", uid: 1000, gid: 1001, more: []uint32{1001, 10}},
		{name: "a number without a name", user: "77", uid: 77, gid: 0, more: []uint32{0}},
		{name: "a group leaves out the others", user: "app:wheel", uid: 1000, gid: 10, more: []uint32{10}},
		{name: "more groups", user: "app", groups: []string{"5", "root"}, uid: 1000, gid: 1001, more: []uint32{1001, 10, 5, 0}},
		{name: "an unknown user", user: "nobody", err: "unable to find user nobody: no matching entries in passwd file"},
		{name: "an unknown group", user: "app:nogroup", err: "unable to find group nogroup: no matching entries in group file"},
		{name: "a number out of range", user: "4294967296", err: "uids and gids must be in range 0-2147483647"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec, err := Spec(Container{Args: []string{"x"}, User: c.user, Groups: c.groups}, root)
			if c.err != "" {
				if err == nil || err.Error() != c.err {
					t.Errorf("got error %v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			u := spec.Process.User
			slices.Sort(u.AdditionalGids)
			slices.Sort(c.more)
			if u.UID != c.uid || u.GID != c.gid || !slices.Equal(u.AdditionalGids, c.more) {
				t.Errorf("got %d:%d %d, want %d:%d %d", u.UID, u.GID, u.AdditionalGids, c.uid, c.gid, c.more)
			}
		})
	}
}

func TestWrongWishesAreRefused(t *testing.T) {
	ok := Container{Args: []string{"x"}}
	for _, c := range []struct {
		name string
		with func(*Container)
		err  string
	}{
		{"no command", func(c *Container) { c.Args = nil }, "no command specified"},
		{"an unknown capability", func(c *Container) { c.CapAdd = []string{"FLY"} }, `invalid CapAdd: unknown capability: "FLY"`},
		{"a relative working directory", func(c *Container) { c.Cwd = "x" }, "the working directory 'x' is invalid, it needs to be an absolute path"},
		{"two mounts at one place", func(c *Container) {
			c.Mounts = []specs.Mount{{Destination: "/x"}, {Destination: "/x/"}}
		}, "duplicate mount point: /x"},
		{"a mount on the root", func(c *Container) { c.Mounts = []specs.Mount{{Destination: "/x/.."}} }, "invalid mount path: '/' mount path must be absolute and not the root"},
		{"a device that is not there", func(c *Container) { c.Devices = []Device{{HostPath: "/dev/none"}} }, `error gathering device information while adding custom device "/dev/none": no such file or directory`},
		{"a file as a device", func(c *Container) { c.Devices = []Device{{HostPath: "/etc/passwd"}} }, `error gathering device information while adding custom device "/etc/passwd": not a device node`},
		{"a profile that is no JSON", func(c *Container) { c.Seccomp = "x" }, "read seccomp profile: Decoding seccomp profile failed: invalid character 'x' looking for beginning of value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			wish := ok
			c.with(&wish)
			_, err := Spec(wish, nil)
			if err == nil || err.Error() != c.err || !errdefs.IsInvalidArgument(err) {
				t.Errorf("got %v, want %s", err, c.err)
			}
		})
	}
}

func BenchmarkSpec(b *testing.B) {
	for b.Loop() {
		if _, err := Spec(Container{Args: []string{"x"}}, nil); err != nil {
			b.Fatal(err)
		}
	}
}
