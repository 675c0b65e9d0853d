// Package seccomp compiles linux.seccomp of a config.json to the classic BPF
// that seccomp(2) loads.
//
// For every architecture the numbers of the system calls are cut into the
// ranges that share one verdict, and the ranges become a balanced tree of
// comparisons: eight or so for any call, where a list would need hundreds.
package seccomp

//go:generate go run ./gen
