// Package lifecycle is the containerd role: every service of containerd's API
// over stores on this machine and shims that it starts.
//
// Above it stand the engine, the builder, cri, and strangers (ctr, nerdctl,
// dockerd) over gRPC on a unix socket. Below it stand shims over the shim v2 Task
// API (ttrpc), its own or a stranger's, and registries over OCI distribution.
// Its data and state directories have containerd's layout, so that a containerd
// can be stopped and lifecycle started on the same directories, and back.
//
// It must not know what Docker or Kubernetes is, nor how a process is isolated:
// what it keeps for the one and asks of the other is opaque to it.
package lifecycle
