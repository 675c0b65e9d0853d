// Package proxy is the door of store/image over containerd's gRPC API.
package proxy

import "google.golang.org/grpc"

// Images is the client of an images service.
type Images struct {
	conn grpc.ClientConnInterface
}

// New asks the images service behind conn; namespace and lease come with the
// context or from the interceptors of conn.
func New(conn grpc.ClientConnInterface) *Images { return &Images{conn: conn} }
