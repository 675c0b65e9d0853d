// Package ociruntime is the OCI runtime: a bundle comes in, a process goes out.
//
// [Compile] turns config.json into a [Plan]: the descriptors that the parent
// opens, one clone, and a flat table of system calls for the child. The parent
// writes the table into a sealed memfd as a tiny static program (a loop of a
// few dozen instructions, and the table as its data), clones once and runs it.
// The child has no Go runtime, no libc and nothing of the host's binary in its
// memory; when a call fails it says which step and which errno, and dies.
//
//	config.json ──Compile──▶ Plan ──assemble──▶ memfd ──clone+exec──▶ child
//	                                                                    │ table of system calls
//	                             status fifo ◀── "ready" ───────────────┤
//	                             start fifo  ─── one byte ─────────────▶│
//	                                                                    ▼ execve(user's program)
//
// Above it stands the shim, which links it, and cmd/gantry-runtime, which gives
// it runc's command line. Below it stands the kernel. It knows nothing of
// images, networks or daemons.
package ociruntime
