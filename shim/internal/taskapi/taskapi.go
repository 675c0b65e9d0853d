// Package taskapi has the messages of the shim's joint: the services
// containerd.task.v2.Task and containerd.task.v3.Task, the events that a task
// publishes, and what `start`, `delete` and `-info` exchange with their caller.
//
// Each message lists its fields with the numbers of containerd/api; a test holds
// every one of them against the generated code.
package taskapi

import (
	"time"

	"github.com/gantryd/gantry/internal/wire"
)

// Any is google.protobuf.Any: an encoded message and the name of its type.
type Any struct {
	TypeURL string
	Value   []byte
}

// Fields lists the fields of google.protobuf.Any.
func (m *Any) Fields(c *wire.Codec) {
	c.String(1, &m.TypeURL)
	c.Bytes(2, &m.Value)
}

// Timestamp is google.protobuf.Timestamp.
type Timestamp struct {
	Seconds int64
	Nanos   int32
}

// Fields lists the fields of google.protobuf.Timestamp.
func (m *Timestamp) Fields(c *wire.Codec) {
	wire.Uint(c, 1, &m.Seconds)
	wire.Uint(c, 2, &m.Nanos)
}

// At is t on the wire. Like containerd's own shim it sends the zero time too,
// as year 1, where a process still runs: clients read a missing time as 1970.
func At(t time.Time) *Timestamp {
	return &Timestamp{Seconds: t.Unix(), Nanos: int32(t.Nanosecond())}
}

// Mount is containerd.types.Mount.
type Mount struct {
	Type    string
	Source  string
	Target  string
	Options []string
}

// Fields lists the fields of containerd.types.Mount.
func (m *Mount) Fields(c *wire.Codec) {
	c.String(1, &m.Type)
	c.String(2, &m.Source)
	c.String(3, &m.Target)
	c.Strings(4, &m.Options)
}

// Status is containerd.v1.types.Status.
type Status uint32

// The states of a task on the wire.
const (
	Unknown Status = iota
	Created
	Running
	Stopped
	Paused
	Pausing
)

// Empty is google.protobuf.Empty.
type Empty struct{}

// Fields lists nothing.
func (m *Empty) Fields(*wire.Codec) {}
