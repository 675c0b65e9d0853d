// Package vm runs tests in a virtual machine: Debian's cloud kernel with cgroup
// v2 alone, under QEMU's software emulation. What the machine that runs the tests
// cannot show, another kernel and the unified hierarchy, is shown there.
//
// The plain machine has no disk. Its root is an initramfs, packed here: busybox, our
// programs, test binaries with their testdata, the kernel modules that they need,
// and an init (./init) that runs the jobs, prints how each ended and powers off.
//
// Where systemd is to be process 1, on cgroup v2 or on the hybrid layout, the
// machine has a disk too: Debian with what the tests need, made by mmdebstrap
// once. The initramfs moves over to it.
package vm
