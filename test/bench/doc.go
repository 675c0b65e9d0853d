// Package bench measures Gantry against the stock stack: the same work, in one
// interleaved run, medians and ratios, since on a shared machine only ratios
// speak. 'make bench' runs it and writes docs/benchmarks.md; while working,
//
//	go test ./test/bench -run '^$' -bench . -benchtime 1x -args -short -only exec
//
// measures one chapter a few times and prints what it found.
//
// It is a Go benchmark so that a plain 'go test' does not measure. It stands on
// the rig's ground, in a network namespace of its own, and everybody's stores are
// on one ext4 of its own: what a machine's disk went through before should not
// tell. Whatever way it ends, the namespaces end with it and nothing is left.
package bench
