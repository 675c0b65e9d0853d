// Package proxy is the door of store/content over containerd's gRPC API.
package proxy

import "google.golang.org/grpc"

// Store is the client of a content service.
type Store struct {
	conn grpc.ClientConnInterface
}

// New asks the content service behind conn; namespace and lease come with the
// context or from the interceptors of conn.
func New(conn grpc.ClientConnInterface) *Store { return &Store{conn: conn} }
