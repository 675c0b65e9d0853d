// Package proxy is the door of store/snapshot over containerd's gRPC API.
package proxy

import "google.golang.org/grpc"

// Snapshotter is the client of a snapshots service.
type Snapshotter struct {
	conn grpc.ClientConnInterface
	name string
}

// New asks for the snapshotter of that name behind conn; namespace and lease come
// with the context or from the interceptors of conn.
func New(conn grpc.ClientConnInterface, snapshotter string) *Snapshotter {
	return &Snapshotter{conn: conn, name: snapshotter}
}
