// Package command is the command line of runc and crun over package ociruntime:
// the same verbs, flags, JSON, words that callers search for, and exit codes.
// One file holds one command.
//
// Above it stand the programs that call a runtime: containerd's shim, dockerd,
// conmon, people. Below it stands ociruntime. It keeps no state of its own: what
// one call needs from another is in the container's state directory.
package command
