package vm

import "testing"

func TestScratch(t *testing.T) {
	m := newMachine(t)
	m.withSystemd(cgroup2)
	m.must(m.files.copy("/tmp/gt-VM/bin/gantry-runtime", "/disk/usr/bin/gantry-runtime"))
	m.must(m.files.copy("/tmp/gt-VM/scratch.sh", "/src/scratch.sh"))
	m.jobs = append(m.jobs, job{"scratch", "/tmp", "sh /src/scratch.sh"})
	m.boot()
}
