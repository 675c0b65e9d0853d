package vm

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/gantryd/gantry/test/rig"
)

// service runs the jobs and powers off, whatever comes of them.
const service = `[Unit]
Description=Jobs of the test machine
Requires=basic.target dbus.socket
After=basic.target dbus.socket
SuccessAction=poweroff-immediate
FailureAction=poweroff-immediate

[Service]
Type=oneshot
ExecStart=/init
Environment=HOME=/root
StandardOutput=file:/dev/ttyS0
StandardError=inherit
`

// withSystemd gives the machine a disk with Debian, and its systemd as process 1.
func (m *machine) withSystemd(layout string) {
	m.t.Helper()
	cache, err := os.UserCacheDir()
	m.must(err)
	m.disk, err = findDisk(filepath.Join(cache, "gantry-test-vm"))
	m.must(err)
	m.layout = layout + " systemd.unit=jobs.service systemd.show_status=no"
	m.files.file("/disk/etc/systemd/system/jobs.service", []byte(service), 0o644)
}

func TestTheRuntimeUnderSystemd(t *testing.T) {
	for name, layout := range map[string]string{"cgroup v2": cgroup2, "hybrid": hybrid} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			m.withSystemd(layout)
			m.tests("ociruntime", "-test.run=Scope")
			m.boot()
		})
	}
}

func TestTheRuntimeWithoutRoot(t *testing.T) {
	m := newMachine(t)
	m.withSystemd(cgroup2)
	m.must(m.files.copy(rig.Program(t, "gantry-runtime"), "/disk/usr/bin/gantry-runtime"))
	m.script("rootless.sh")
	m.boot()
}

func TestCheckpointAndRestore(t *testing.T) {
	m := newMachine(t)
	m.withSystemd(cgroup2)
	m.must(m.files.copy(rig.Program(t, "gantry-runtime"), "/disk/usr/bin/gantry-runtime"))
	m.script("checkpoint.sh")
	m.boot()
}
