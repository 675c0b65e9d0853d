// Package version says which Gantry this is.
package version

// Version is the release in semantic versioning, Commit the revision that the
// build was made from; the Makefile sets both with -ldflags -X.
var (
	Version = "0.1.0-dev"
	Commit  = "unknown"
)
