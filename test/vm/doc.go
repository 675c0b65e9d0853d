// Package vm runs tests in a virtual machine: Debian's cloud kernel with cgroup
// v2 alone, under QEMU's software emulation. What the machine that runs the tests
// cannot show, another kernel and the unified hierarchy, is shown there.
//
// The machine has no disk. Its root is an initramfs, packed here: busybox, our
// programs, test binaries with their testdata, the kernel modules that they need,
// and an init (./init) that runs the jobs, prints how each ended and powers off.
package vm
