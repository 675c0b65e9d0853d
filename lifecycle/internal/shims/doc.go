// Package shims starts, finds again and cleans up after shims by the shim v2
// rules (containerd docs/runtime-v2.md):
//
//	lifecycle                          shim binary                shim process
//	   │ make bundle                        │                           │
//	   ├── exec: shim … start ─────────────▶│── starts ────────────────▶│
//	   │◀──────────────────── its address ──┤                           │
//	   ├── ttrpc: Create, Start, Wait, Delete, Shutdown ───────────────▶│
//	   │◀───────────────────────────── events, to the ttrpc socket ─────┤
//	   │                                                           (dies)
//	   ├── exec: shim … delete ────────────▶│
//
// A bundle has containerd's layout, so that a stock containerd finds our tasks
// and we find its: <state>/io.containerd.runtime.v2.task/NAMESPACE/ID/ with
// config.json, rootfs, work (a link to the same path under root), log (a fifo),
// shim-binary-path, and bootstrap.json or, from older shims, address.
package shims
