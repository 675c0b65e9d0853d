// Package torture kills gantryd and shims at random instants while several
// clients work, and then proves that nothing that anybody was told is untrue:
//
//	docker clients ──▶ engine ─┐
//	containerd clients ────────┴▶ lifecycle ──▶ shims ──▶ containers
//	                     ▲                        ▲
//	                  kill -9                  kill -9
//
// Every client keeps what it was told, and what may be where the daemon died
// before it answered (mind). The checker (check_test.go) compares that with
// what there is, takes everything away by the APIs, and looks for what is left:
// processes, mounts, cgroups, links, files, leases, snapshots, blobs; and it reads
// the stores' files when the daemon has ended.
//
// Beside what comes at random stands what comes at every step (steps_test.go): each
// operation of a client is performed again and again, and gantryd or the shim is
// killed before the first, the second, … of the system calls by which it changes
// anything. A tracer (tracer_test.go) does that from outside, by ptrace(2). The tests
// take a few steps of some operations; 'make torture-steps' takes all.
//
// 'make torture SECONDS=600' tortures as long as wanted; -seed repeats the
// clients' choices, though not the instants of the kills.
package torture
