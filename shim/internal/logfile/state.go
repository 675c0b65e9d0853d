package logfile

import (
	"os"

	"github.com/gantryd/gantry/api/stdio"
	"github.com/gantryd/gantry/internal/wire"
)

// File writes out what is buffered, and is the file, for another process.
func (l *Log) File() *os.File {
	l.Flush()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.file
}

// Resume goes on with the file f of the log that l names.
func Resume(l stdio.Logger, f *os.File) (*Log, error) {
	log := newLog(l)
	return log, log.use(f)
}

// StreamState is what another process needs to go on with a Stream: a line that has
// no end yet.
type StreamState struct {
	partial []byte
	since   string
}

// Fields lists the fields of StreamState.
func (m *StreamState) Fields(c *wire.Codec) {
	c.Bytes(1, &m.partial)
	c.String(2, &m.since)
}

// State is the stream's state.
func (s *Stream) State() *StreamState {
	s.log.mu.Lock()
	defer s.log.mu.Unlock()
	return &StreamState{s.partial, s.since}
}

// Resume is the part of the log for a stream that st is the state of.
func (l *Log) Resume(name string, st *StreamState) *Stream {
	return &Stream{log: l, name: name, partial: st.partial, since: st.since}
}
