package ociruntime

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/gantryd/gantry/ociruntime/internal/cgroup"
)

// An ordinary user may do two things less than root before there is a container:
// write a map of more than the own id (newuidmap and newgidmap may, setuid root),
// and copy mounts. So the user namespace is made and mapped first, and joined by
// the child, who then copies the mounts itself.

// needsHelpers says whether newuidmap and newgidmap have to write the maps of a
// new user namespace: a user may map the own id alone (user_namespaces(7)).
func needsHelpers(l *specs.Linux) bool {
	own := func(m []specs.LinuxIDMapping, id int) bool {
		return len(m) == 0 || len(m) == 1 && m[0].Size == 1 && int(m[0].HostID) == id
	}
	return os.Geteuid() != 0 && (!own(l.UIDMappings, os.Geteuid()) || !own(l.GIDMappings, os.Getegid()))
}

// helpersMap has newuidmap and newgidmap write the maps of the user namespace
// of pid.
func helpersMap(pid int, uids, gids []specs.LinuxIDMapping) error {
	for _, m := range []struct {
		helper string
		ids    []specs.LinuxIDMapping
	}{{"newuidmap", uids}, {"newgidmap", gids}} {
		args := []string{strconv.Itoa(pid)}
		for _, e := range m.ids {
			for _, n := range []uint32{e.ContainerID, e.HostID, e.Size} {
				args = append(args, strconv.FormatUint(uint64(n), 10))
			}
		}
		if out, err := exec.Command(m.helper, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("map ids: %s %s: %w: %s", m.helper, strings.Join(args, " "), err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// mappedFile is the user namespace that the parent makes for the child to join.
const mappedFile = "mapped user namespace"

// joins says whether the child joins n: it is given by path, or mapped already.
func (c *compiler) joins(n specs.LinuxNamespace) bool {
	return n.Path != "" || c.HelpersMap && n.Type == specs.UserNamespace
}

// namespaceFile is the descriptor of a namespace that is joined.
func (c *compiler) namespaceFile(n specs.LinuxNamespace) Arg {
	if n.Path == "" {
		return c.file(File{Name: mappedFile})
	}
	return c.file(File{Name: string(n.Type) + " namespace", Call: "open", Path: n.Path})
}

// giveUserNamespace makes the user namespace, where the child is to join it.
func (t *talk) giveUserNamespace(l *specs.Linux) error {
	made := slices.ContainsFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace && n.Path == "" })
	if !made || !needsHelpers(l) {
		return nil
	}
	ns, err := userNamespace(l.UIDMappings, l.GIDMappings)
	if err != nil {
		return err
	}
	defer ns.Close()
	t.theirs[mappedFile], err = unix.FcntlInt(ns.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	return err
}

// later is the call of a file that the child opens itself.
const later = "later"

// openInside has the child copy the mounts that the parent may not: in its own
// namespaces, where it has the right to, and before it changes any mount. Each
// copy takes the number that the rest of the table knows it by.
func (c *compiler) openInside() error {
	rest := slices.IndexFunc(c.plan.Steps, func(s *Step) bool { return s.Name == privateMounts }) + 1
	after := slices.Clone(c.plan.Steps[rest:])
	c.plan.Steps = c.plan.Steps[:rest]
	for i := range c.plan.Files {
		f := &c.plan.Files[i]
		if f.Call != "open_tree" {
			continue
		}
		if f.IDMap != nil {
			return fmt.Errorf("mounts: %s: an ordinary user may not map the ids of a mount", f.Path)
		}
		c.stage("open "+f.Name, f.Path)
		tree := c.open("open_tree", cwd(), str(f.Path), hex(uint64(f.Flags)))
		for _, a := range f.Attrs {
			c.setAttr(reg(tree), a)
		}
		c.call("dup3", reg(tree), num(c.plan.FirstFD+i), named(unix.O_CLOEXEC, "O_CLOEXEC"))
		c.call("close", reg(tree))
		*f = File{Name: f.Name, Call: later, Path: f.Path}
	}
	shift := len(c.plan.Steps) - rest
	c.plan.Steps = append(c.plan.Steps, after...)
	for i, at := range c.marks {
		if at > rest {
			c.marks[i] = at + shift
		}
	}
	return nil
}

// Restricted says that this process is an ordinary user, or the root of a user
// namespace, whom most cgroups are not open to.
func Restricted() bool { return cgroup.Restricted() }

// permittedGroup is the group of a container that names none, in the hierarchies
// where this user may make one. A limit that needs another is refused later, by
// its name. On v2 the user's own group holds processes, and so can have no
// limited groups below: the container's is beside it.
func permittedGroup(l *cgroup.Layout, id string) (*cgroup.Group, error) {
	for _, path := range []string{"../" + id, id} {
		if path != id && !l.V2Only() {
			continue
		}
		g, err := l.Group(path)
		if err != nil {
			continue // it is the root that lies above
		}
		if g = l.Permitted(g); len(g.Dirs) > 0 {
			return g, nil
		}
	}
	return &cgroup.Group{}, nil
}
