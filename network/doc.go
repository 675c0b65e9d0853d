// Package network gives a container its network: a namespace made and pinned
// before the task exists, an address on a bridge, names, and published ports.
//
// Above it stand engine, and later cri and builder, in the same process; they
// speak this package's small structs and net/netip, so it knows nothing of
// Docker's REST, of containerd or of images. Below it stands the kernel alone:
// rtnetlink, nftables and nsfs. No helper program is run and nothing of a
// container's traffic passes through this process, so all of it goes on when
// the daemon dies; the one exception is the DNS server of user-defined networks,
// which Restore opens again.
//
// What is made of the kernel's things carries the name of the default bridge:
// the nftables tables are called after it and the host ends of veth pairs begin
// with a hash of it. Two daemons on one host therefore need two bridge names,
// and nothing else.
package network
