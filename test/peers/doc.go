// Package peers pins the current releases of the strangers that are Go programs
// and that Debian has only in an older one: their commands are the tools of this
// module (go tool -n NAME builds one and prints its path). It is a module of its
// own so that the product's go.mod stays clean.
package peers
