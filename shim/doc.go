// Package shim keeps one container, or one pod, alive while the daemons above
// it come and go. It serves the shim v2 Task API, runs the OCI runtime, reaps,
// and owns the container's streams and log.
//
// Above it stands lifecycle, or any containerd, which runs `start` and then
// calls over ttrpc; events go the other way, and wait here while nobody is
// there to take them. Below it stands our runtime, linked in, or any other OCI
// runtime by its command line. Beside it stand attach clients (api/stdio).
//
// It must not know images, snapshots, networks or what Docker is.
//
//	containerd ──start──▶ shim start ──exec, socket as fd 3──▶ shim
//	     ▲                    │ address                          │ ▲
//	     └────────────────────┘                                  │ │ ttrpc
//	     └───────────────────────────────────────────────────────┼─┘
//	                                                             ▼
//	                                              ociruntime, or runc, crun, …
package shim
