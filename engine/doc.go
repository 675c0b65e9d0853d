// Package engine is the Docker Engine REST API over the containerd API.
//
// Above it stand the stock clients (docker, compose, the SDKs, gantry itself)
// over HTTP on a unix socket. Below it stands lifecycle, or any containerd, over
// gRPC. It keeps no second truth: what Docker knows of a container beyond
// containerd's words is an extension of the containerd record, so the engine can
// die at any instruction and lose nothing.
//
// It must not know how a container is started, where a snapshot lies or how a
// layer is unpacked: it asks.
package engine
