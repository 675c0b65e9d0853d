package stdio

// Stream numbers of a frame header.
const (
	Stdin  byte = 0
	Stdout byte = 1
	Stderr byte = 2
)

// FrameHeaderLen is the length of a frame header in bytes.
const FrameHeaderLen = 8

// Hello is the first line that an attach client sends.
type Hello struct {
	Stdin      bool `json:"stdin,omitempty"`
	Stdout     bool `json:"stdout,omitempty"`
	Stderr     bool `json:"stderr,omitempty"`
	CloseStdin bool `json:"closeStdin,omitempty"` // end of this client's stdin closes the container's
	Reopen     bool `json:"reopen,omitempty"`     // open the log's path again; asks for nothing else
}

// The server's answers to a Hello.
const (
	ok       = "ok\n"
	errorAnd = "error " // and a text and a newline
)
