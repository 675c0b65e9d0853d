package vm

import "testing"

// The kernel has AppArmor and SELinux; which of the two is used is told to it at
// the boot.
func TestAppArmor(t *testing.T) {
	m := newMachine(t)
	m.withSystemd(cgroup2 + " security=apparmor")
	m.programsTo("/disk/usr/bin")
	m.image()
	m.script("apparmor.sh")
	m.boot()
}
