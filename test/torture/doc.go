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
// 'make torture SECONDS=600' tortures as long as wanted; -seed repeats the
// clients' choices, though not the instants of the kills.
package torture
