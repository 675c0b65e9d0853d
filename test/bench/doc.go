// Package bench measures Gantry against the stock stack: the same work, in one
// interleaved run, medians and ratios, since on a shared machine only ratios
// speak. 'make bench' runs it and writes docs/benchmarks.md.
//
// It is a Go benchmark so that a plain 'go test' does not measure. The test binary
// runs itself again in a mount and a network namespace of its own: bridges and nft
// tables stay there, and crun, which refuses the hybrid cgroup layout, sees pure
// version 1.
package bench
