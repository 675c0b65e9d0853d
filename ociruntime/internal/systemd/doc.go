// Package systemd asks systemd for the transient scope that holds a container,
// and for its end.
//
// It speaks D-Bus itself, the dozen types that these requests need: the library
// of the field brings package net and its tables into programs that start for
// every container and end after milliseconds. Nothing happens here unless the
// systemd cgroup driver is asked for.
package systemd
