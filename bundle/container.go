package bundle

import (
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Container is all that a user and an image wish of a container. The zero value
// of a field is Docker's default.
type Container struct {
	ID     string
	Rootfs string // root.path: absolute, or relative to the bundle
	// ReadonlyRootfs makes the root read-only, and the three files of /etc too.
	ReadonlyRootfs bool

	Args     []string // see Command
	Env      []string // KEY=VALUE, over PATH, HOSTNAME and TERM; see Env
	Cwd      string   // "/" unless told
	User     string   // NAME or UID, with :GROUP or :GID or without
	Groups   []string // more groups, by name or number
	Terminal bool
	// Height and Width of the terminal at its start, in characters; 0 is unknown.
	Height, Width uint
	Umask         *uint32
	OOMScoreAdj   int
	Rlimits       []specs.POSIXRlimit

	Hostname, Domainname string

	Network, PID, IPC, UTS, Cgroup Namespace
	CgroupsPath                    string
	Sysctl                         map[string]string
	// Resources without devices, which Spec adds.
	Resources   specs.LinuxResources
	Devices     []Device
	DeviceRules []specs.LinuxDeviceCgroup

	Privileged      bool
	CapAdd, CapDrop []string // with or without "CAP_"; "ALL"
	NoNewPrivileges bool
	// Seccomp is a profile in Docker's JSON, "unconfined", or "" for Docker's
	// default profile. A privileged container has none unless it is told one.
	Seccomp string
	// AppArmor and SELinux labels, passed on as they are.
	AppArmorProfile, SelinuxLabel, MountLabel string
	// MaskedPaths and ReadonlyPaths are DefaultMaskedPaths and
	// DefaultReadonlyPaths where nil. A privileged container has none.
	MaskedPaths, ReadonlyPaths []string

	// Mounts of the user, in any order.
	Mounts []specs.Mount
	// EtcHosts, EtcHostname and EtcResolvConf are host paths that are mounted on
	// those files, unless a mount of the user is there; "" is none.
	EtcHosts, EtcHostname, EtcResolvConf string
	// ShmSize of /dev/shm in bytes: 0 is 64 MiB, less than 0 is no /dev/shm.
	ShmSize int64
	// ShmPath is a host directory that is /dev/shm instead.
	ShmPath string
	// Init is the host path of a static init program that runs Args as its child.
	Init string

	Annotations map[string]string
}

// Namespace says which namespace of a kind a container lives in: one of its own
// (the zero value), the host's, or the one that Path names.
type Namespace struct {
	Host bool
	Path string
}

// Device is a device node, or a directory of them, given to a container.
type Device struct {
	HostPath string
	Path     string // in the container; HostPath if empty
	Access   string // of "rwm"; "rwm" if empty
}

// Command is what a container runs. An entrypoint of the user, be it empty,
// replaces the image's and takes the image's command away with it; a command of
// the user replaces the image's. An entrypoint of one empty string is none.
func Command(image ocispec.ImageConfig, entrypoint, cmd []string) (resultEntrypoint, resultCmd []string, err error) {
	if entrypoint == nil {
		entrypoint = image.Entrypoint
		if len(cmd) == 0 {
			cmd = image.Cmd
		}
	}
	if len(entrypoint) == 1 && entrypoint[0] == "" {
		entrypoint = nil
	}
	if len(entrypoint)+len(cmd) == 0 {
		return nil, nil, refuse("no command specified")
	}
	return entrypoint, cmd, nil
}

// Env lays the later lists over the earlier: a key that is there already keeps
// its place and gets the new value. A KEY without "=" takes the key away.
func Env(lists ...[]string) []string {
	var env []string
	for _, kv := range slices.Concat(lists...) {
		key, _, hasValue := strings.Cut(kv, "=")
		i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, key+"=") })
		switch {
		case !hasValue && i >= 0:
			env = slices.Delete(env, i, i+1)
		case !hasValue:
		case i >= 0:
			env[i] = kv
		default:
			env = append(env, kv)
		}
	}
	return env
}
