// Package stdio is the wire contract for a container's standard streams: where
// the shim writes the log, and how any number of clients attach.
//
// # The logger URI
//
// The engine asks for logs and attach with containerd's own words, a
// "binary://" URI as stdout and stderr of tasks.Create:
//
//	binary:///usr/local/bin/containerd-shim-gantry-v2?log=/…/ID-json.log&attach=/run/gantry/a/ID
//
// A stock shim runs that binary as its logger, with the container's stdout and
// stderr as descriptors 3 and 4 and a pipe to close when ready as 5 (containerd
// runtime v2 README, "Logging"). containerd-shim-gantry-v2, when the URI names
// itself, does the same work in its own process. One URI, one code, both shims.
//
// In containerd's words a container has a binary:// logger or a stdin, not both.
// Our shim knows better: with Logger.Stdin the container's stdin is a pipe that
// attach clients feed, and tasks.Create names no stdin. Under a foreign shim the
// engine makes three fifos, starts the logger on them before tasks.Create
// (Logger.Args), and gives the fifos to tasks.Create.
//
// # The log
//
// Driver json-file writes one JSON object for each line, as Docker does (Record);
// a line of more than MaxLine bytes is several records, of which only the last
// ends in a newline. A file that has reached MaxSize is renamed Log.1, what was
// Log.1 becomes Log.2, and the oldest goes; with MaxFile 1 it is unlinked. So a
// reader that follows reads what it has open to its end and then opens Log again
// when that has become another inode. Unless the URI says otherwise a log is
// limited (DefaultMaxSize, DefaultMaxFile). Driver cri writes Kubernetes' format
// and leaves rotation to the kubelet, which renames the file and then has it made
// again by Reopen.
//
// The log is on disk before the exit is told: who reads it after Wait reads all.
//
// # The attach socket
//
// A unix stream socket, there from tasks.Create until the container's streams
// have ended. The client sends one line, a Hello in JSON, and then raw bytes for
// the container's stdin, if it asked for stdin; shutdown(SHUT_WR) is the end of
// stdin where Hello.CloseStdin says so, and the end of that client's input only
// where not. The server answers with "ok\n" or "error TEXT\n", and then frames in
// the form of Docker's multiplexed stream (Engine API, "Stream format"):
//
//	byte 0: stream (1 stdout, 2 stderr)   bytes 1-3: zero   bytes 4-7: length, big endian
//
// for a container without a terminal, and raw bytes for one with. After "ok" a
// client gets all that the container writes from then on; what it wrote before is
// in the log. End of file means that every byte has been delivered.
//
// A Hello that asks to reopen is answered when the log has been closed and its
// path opened again, and that is all; the connection ends.
//
// A slow client blocks neither the container nor another client, and loses
// nothing: what its socket does not take is kept for it by the server, in
// memory up to a bound and then in an unlinked file. Stdin is the other way
// round: a container that does not read makes the client wait.
package stdio
