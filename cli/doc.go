// Package cli is the docker-compatible command line: one file per command, the
// same words, columns and exit codes.
//
// Below it stands an engine, ours or dockerd, over the Docker Engine API. It
// must not know what an engine is made of: it links no gRPC and no daemon code,
// and only the one command that was asked for is built, so that it starts in
// the time that a process needs.
package cli
