// Package journey is the wire contract by which `gantry run --explain` learns
// what each joint did for one start and how long it took.
//
// The engine sets Key on the calls it makes for a start that is to be explained:
// as gRPC metadata towards lifecycle, which passes it on as ttrpc metadata to the
// shim. The shim writes its spans, and the runtime's steps, as a JSON array of
// Span to File in the bundle directory; lifecycle sends its own spans and those
// back in the gRPC trailer Trailer (JSON) of tasks.Create and tasks.Start. A
// stock part in any place ignores the key, and its spans are then missing.
package journey

import "time"

const (
	// Key is the request metadata key; its value is "1".
	Key = "gantry-explain"
	// Trailer is the gRPC trailer key with a JSON array of Span.
	Trailer = "gantry-journey-bin"
	// File is the name of the shim's spans inside the bundle directory.
	File = "journey.json"
)

// Span is one thing that one part did.
type Span struct {
	// Part is who did it: "cli", "engine", "lifecycle", "shim", "runtime", "child".
	Part string `json:"part"`
	// Name says what was done: "POST /containers/create", "tasks.Create",
	// "mount overlay on rootfs", "clone3".
	Name string `json:"name"`
	// Start is wall clock time.
	Start time.Time `json:"start"`
	// Took is in nanoseconds on the wire.
	Took time.Duration `json:"took"`
	// Detail is what a curious reader would ask next; it may be empty.
	Detail string `json:"detail,omitempty"`
}
