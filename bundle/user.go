package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// user looks up c.User and c.Groups. The group itself leads the additional ones:
// a process must not gain files by leaving its groups (CVE-2022-36109).
func (c Container) user(root Root) (specs.User, error) {
	passwd, err := root.account("/etc/passwd")
	if err != nil {
		return specs.User{}, err
	}
	group, err := root.account("/etc/group")
	if err != nil {
		return specs.User{}, err
	}
	who, err := user.GetExecUser(c.User, nil, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return specs.User{}, refuse("%v", err)
	}
	more, err := user.GetAdditionalGroups(c.Groups, bytes.NewReader(group))
	if err != nil {
		return specs.User{}, refuse("%v", err)
	}
	u := specs.User{UID: uint32(who.Uid), GID: uint32(who.Gid), Umask: c.Umask}
	for _, gid := range slices.Concat([]int{who.Gid}, who.Sgids, more) {
		if !slices.Contains(u.AdditionalGids, uint32(gid)) {
			u.AdditionalGids = append(u.AdditionalGids, uint32(gid))
		}
	}
	return u, nil
}

// account reads one of the two files; an image need not have them.
func (r Root) account(name string) ([]byte, error) {
	data, err := r.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up users of the image: %w", err)
	}
	return data, nil
}
